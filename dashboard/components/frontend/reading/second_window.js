// The image in a window of its own, for a second display: it shows whatever case is open, and keys pressed there are the
// page's. It is filled from here, by the same scripts; nothing is loaded for it.
import { make } from "../dom.js"
import { Viewer } from "../viewer/viewer.js"
import { pressed } from "./keys.js"

const COLOURS = ["--st-font", "--st-text-color", "--st-background-color", "--st-secondary-background-color", "--st-border-color",
  "--st-link-color", "--st-primary-color", "--st-gray-color", "--st-code-background-color"]
const LAYOUT = `
  body { margin: 0; background: #000; }
  .viewer { box-sizing: border-box; height: 100vh; padding: 6px; }
  .stage { flex: 1; min-height: 0; height: auto !important; max-height: none !important; aspect-ratio: auto !important; }
  .keys, .overlays { display: none !important; }
  body[data-prior="shown"] { display: grid; grid-template-columns: 1fr 1fr; }
  .prior { position: relative; color: #ddd; font-family: var(--st-font); }
  .prior p { position: absolute; z-index: 1; top: 3.2rem; left: 1rem; margin: 0; }`

export class SecondWindow {
  constructor(page) {
    this.page = page
    this.empty = page.$(".viewer").cloneNode(true) // as it is before anything is shown in it
    /** @type {Viewer | null} */
    this.viewer = null
  }

  toggle() {
    if (this.viewer) this.close()
    else this.open()
  }

  open() {
    const other = window.open("", "cxr-lens-image", "popup,width=1000,height=1100")
    if (!other) return this.page.say("The browser did not open a second window. Allow windows of this page, then try again.")
    this.window = other
    const { document: its } = other
    its.title = "Radiograph · CXR Lens"
    const { root } = this.page
    const styles = [...root.getRootNode().querySelectorAll("style")].map(({ textContent }) => textContent)
    const kept = getComputedStyle(root)
    const colours = COLOURS.map((name) => `${name}: ${kept.getPropertyValue(name)};`).join(" ")
    its.head.replaceChildren(its.adoptNode(make("style", { text: `:root { ${colours} }\n${styles.join("\n")}\n${LAYOUT}` })))
    its.body.replaceChildren(its.importNode(this.empty, true))
    this.viewer = new Viewer(its.body.firstElementChild)
    this.viewer.ask = this.page.own.ask
    this.events = new AbortController()
    const on = (name, call) => other.addEventListener(name, call, { signal: this.events.signal, capture: true })
    on("keydown", (event) => pressed(this.page, event))
    for (const name of ["pointermove", "pointerdown", "keydown", "wheel"]) on(name, () => this.page.clock.touch())
    on("resize", () => this.viewer?.draw())
    this.swapped()
  }

  close() {
    if (!this.viewer) return
    this.viewer.close()
    this.viewer = null
    this.events.abort()
    if (!this.window.closed) this.window.close()
    this.swapped()
  }

  // Its reader may close it; nobody tells.
  look() {
    if (this.viewer && this.window.closed) this.close()
  }

  swapped() {
    this.page.prior.close()
    this.page.drawnPlate = null
    this.page.root.dataset.second = this.viewer ? "open" : ""
    this.page.draw()
  }
}
