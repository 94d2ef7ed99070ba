// Mounts the viewer of viewer.js on its own.
const viewers = new WeakMap()

export default function (component) {
  const { data, parentElement } = component
  let viewer = viewers.get(parentElement)
  if (!viewer) {
    viewer = new Viewer(parentElement.querySelector(".viewer"))
    viewers.set(parentElement, viewer)
  }
  viewer.load(data)
  return () => {
    viewer.close()
    viewers.delete(parentElement)
  }
}
