// Mounts the viewer on its own.
import { Viewer } from "./viewer.js"

const viewers = new WeakMap()

export default function mount(component) {
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
