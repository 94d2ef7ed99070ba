// Mounts the reading page.
import { Reading } from "./page.js"

const pages = new WeakMap()

export default function mount(component) {
  const { data, parentElement, setStateValue } = component
  let page = pages.get(parentElement)
  if (!page) {
    page = new Reading(parentElement.querySelector(".reading"))
    pages.set(parentElement, page)
  }
  page.receive(data, setStateValue)
  return () => {
    page.close()
    pages.delete(parentElement)
  }
}
