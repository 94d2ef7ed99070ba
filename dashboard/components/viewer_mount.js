// Mounts the viewer of viewer.js on its own.
const viewers = new WeakMap()

export default function (component) {
  const { data, parentElement, setTriggerValue } = component
  let viewer = viewers.get(parentElement)
  if (!viewer) {
    viewer = new Viewer(parentElement.querySelector(".viewer"))
    viewers.set(parentElement, viewer)
  }
  viewer.ask = (region) => setTriggerValue("region", region)
  viewer.load(data)
  if (window.cxrLensHeat) viewer.hear(window.cxrLensHeat) // came before the viewer
  return () => {
    viewer.close()
    viewers.delete(parentElement)
  }
}
