// The study before this one, beside it, where the session shows it and there is one.
import { make } from "../dom.js"
import { Viewer } from "../viewer/viewer.js"

export class Prior {
  constructor(page) {
    this.page = page
    this.empty = page.$(".viewer").cloneNode(true) // as it is before anything is shown in it
    /** @type {Viewer | null} */
    this.viewer = null
  }

  // ``bytes`` are its image, undefined for none; ``host`` is the element that has the image of the case.
  show(bytes, name, host) {
    if (!bytes || this.box?.parentNode !== host) this.close()
    host.dataset.prior = bytes ? "shown" : ""
    this.page.root.dataset.prior = bytes ? "shown" : ""
    if (!bytes) return
    if (!this.viewer) {
      const its = host.ownerDocument
      this.box = its.adoptNode(make("div", { className: "prior" }, make("p", { text: "The study before" })))
      this.box.append(its.importNode(this.empty, true))
      this.box.querySelector(".viewer").style.display = "" // it may have been hidden where it was copied from
      host.append(this.box)
      this.viewer = new Viewer(this.box.querySelector(".viewer"))
      this.viewer.root.querySelector('[data-tool="region"]').hidden = true // marks are of this study
    }
    this.viewer.load(bytes, `before ${name}`)
  }

  close() {
    this.viewer?.close()
    this.viewer = null
    this.box?.remove()
    this.box = null
  }
}
