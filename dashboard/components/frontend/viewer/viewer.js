// The radiograph viewer. All state lives here, in the browser; nothing is sent to the server but a region that is asked about.
// It is loaded again whenever its data change: the view is kept while the study stays the same and reset when it changes.
import { buildHeat, buildOverlays, buildPresets, showLegend } from "./bars.js"
import { listen, pressed } from "./controls.js"
import { drawAll } from "./drawing.js"
import { nudged, onImage, panelsOf, placed, rectangle, zoomed } from "./geometry.js"
import { brightness, develop, dragged, inUnits, wideInUnits, windowsOf } from "./grey_levels.js"
import { unpack } from "./packed.js"
import { contour, paintHeat, paintOverlay } from "./pictures.js"
import { aboutRuler, distance, moved } from "./ruler.js"
import { turnedInWords, upright } from "./turning.js"
import { TWO_LINES, measuredInWords } from "./two_lines.js"

const REGION_STEP = 0.02 // of the image, by keyboard

export class Viewer {
  constructor(root) {
    this.root = root
    this.canvas = root.querySelector("canvas")
    this.readout = root.querySelector(".readout")
    this.pointer = root.querySelector(".pointer")
    this.overlayBar = root.querySelector(".overlays")
    this.heatBar = root.querySelector(".heat")
    this.tool = "window"
    this.window = 1 // width of the window of grey levels
    this.level = 0 // its middle
    this.inverted = false
    this.zoom = 1
    this.shift = [0, 0]
    /** @type {((region: number[]) => void) | undefined} */
    this.ask = undefined // called with a region that is drawn
    this.shown = new Set() // groups of overlays
    this.opacity = 0.8
    this.windows = [] // to choose from
    this.turns = 0 // quarters, clockwise
    this.mirrored = false
    this.ruler = null // [x, y, x, y] in pixels of the image
    this.lines = [] // the same, up to two, of an angle or a ratio
    this.lineTool = "" // which of these
    this.cover = "blank" // what the region is covered by; "none": it is only drawn
    this.maps = [] // heat maps, a panel each
    this.heatShown = true
    this.contoured = false
    this.region = null // left, top, right, bottom, fractions of the image
    this.draft = null // the same, while it is drawn
    this.corner = null // where the drag began that draws it
    this.penDown = false // a pencil draws it
    this.events = new AbortController()
    listen(this, this.events.signal)
    this.resizing = new ResizeObserver(() => this.draw())
    this.resizing.observe(this.canvas)
  }

  close() {
    this.events.abort()
    this.resizing.disconnect()
  }

  // ``name`` says which study it is where the bytes do not.
  load(bytes, name) {
    if (bytes === this.bytes) return
    this.bytes = bytes
    const { header, pixels } = unpack(bytes)
    if (name) header.study = name
    const changed = header.study !== this.header?.study
    this.header = header
    this.pixels = pixels
    this.plate = new OffscreenCanvas(header.width, header.height)
    this.plateContext = this.plate.getContext("2d")
    this.plateImage = this.plateContext.createImageData(header.width, header.height)
    this.windows = windowsOf(pixels, header)
    header.overlays.forEach((overlay, index) => (overlay.picture = paintOverlay(overlay, index)))
    this.root.querySelector('[data-tool="region"]').hidden = !header.regions
    this.root.querySelector('[data-tool="ruler"]').title = `${aboutRuler(header.spacing)} (R; then arrows and Enter)`
    this.root.style.setProperty("--ratio", String(header.height / header.width))
    this.canvas.setAttribute("aria-label", `Radiograph ${header.study}, ${header.width} by ${header.height} pixels`)
    buildPresets(this)
    buildOverlays(this)
    if (!changed) return this.develop()
    this.maps = []
    this.heard = this.region = this.draft = null
    buildHeat(this)
    this.reset()
  }

  // Heat maps and the region come by a message of their own: the image need not be sent again for them.
  hear(detail) {
    if (detail.study !== this.header?.study) return
    this.region = detail.region
    this.cover = detail.cover ?? "blank"
    if (detail.maps !== this.heard) {
      this.heard = detail.maps
      this.maps = JSON.parse(detail.maps).map((map) => {
        const found = { ...map, values: Int8Array.from(atob(map.values), (letter) => letter.charCodeAt(0)) }
        return { ...found, picture: paintHeat(found), lines: contour(found) }
      })
      this.heatShown = !(this.maps.length === 1 && this.maps[0].untrusted)
    }
    buildHeat(this, detail.scale)
    this.draw()
  }

  // ------------------------------------------------------------------------------------------------- what is looked at

  get panels() {
    return panelsOf(this.maps.length, this.canvas.width, this.canvas.height, window.devicePixelRatio || 1)
  }

  get placed() {
    return placed(this.header, this.panels, this)
  }

  get distance() {
    return distance(this.ruler, this.header)
  }

  toggle(group) {
    if (!this.shown.delete(group)) this.shown.add(group)
    showLegend(this)
    this.draw()
  }

  only(group) {
    this.shown = new Set(group ? [group] : [])
    this.draw()
  }

  reset() {
    this.ruler = null
    this.lines = []
    this.turns = 0
    this.mirrored = false
    this.zoom = 1
    this.shift = [0, 0]
    this.inverted = false
    this.preset(0)
  }

  preset(index) {
    const { window, level } = this.windows[index]
    Object.assign(this, { window, level })
    this.develop()
  }

  // Grey levels to screen brightness, then draw.
  develop() {
    const inverted = this.inverted !== Boolean(this.header.grey?.inverse)
    const view = { window: this.window, level: this.level, inverted }
    develop(this.pixels, brightness(this.header.levels, view), new Uint32Array(this.plateImage.data.buffer))
    this.plateContext.putImageData(this.plateImage, 0, 0)
    this.draw()
  }

  draw() {
    if (!this.header) return
    const ratio = window.devicePixelRatio || 1
    this.makeRoom(ratio)
    const box = this.canvas.getBoundingClientRect()
    const [across, down] = [Math.round(box.width * ratio), Math.round(box.height * ratio)]
    if (!across || !down) return
    if (this.canvas.width !== across || this.canvas.height !== down) {
      this.canvas.width = across
      this.canvas.height = down
    }
    drawAll(this, this.canvas.getContext("2d"), ratio)
    this.report(ratio)
  }

  // Panels side by side need more height the fewer of them fit across: the style sheet gives it.
  makeRoom(ratio) {
    const { columns, rows } = panelsOf(this.maps.length, this.canvas.getBoundingClientRect().width * ratio, 1, ratio)
    this.root.style.setProperty("--columns", String(columns))
    this.root.style.setProperty("--rows", String(rows))
    this.root.toggleAttribute("data-beside", this.maps.length > 1)
  }

  report(ratio) {
    const times = this.zoom.toFixed(this.zoom < 10 ? 1 : 0)
    const { grey } = this.header
    const [window, level] = [wideInUnits(this.window, grey), inUnits(this.level, grey)].map(Math.round)
    this.readout.textContent =
      [`W ${window}  L ${level}`, `${times}×`, this.inverted ? "inverted" : "", turnedInWords(this)].filter(Boolean).join("  ·  ")
    const chosen = this.windows.findIndex((each) => each.window === this.window && each.level === this.level)
    this.root.querySelector(".presets").value = chosen < 0 ? "" : String(chosen)
    Object.assign(this.root.dataset, {
      window, level, zoom: this.zoom.toFixed(3), turns: this.turns, mirrored: this.mirrored,
      panel: `${Math.round(this.panels.across / ratio)} x ${Math.round(this.panels.down / ratio)}`,
      measured: this.lines.length ? measuredInWords(this.lineTool, this.lines, this.header) : "",
      inverted: this.inverted, tool: this.tool, study: this.header.study,
      ruler: this.ruler ? this.distance : "", overlay: [...this.shown].join(" "),
    })
    this.root.querySelector('[data-do="invert"]').setAttribute("aria-pressed", String(this.inverted))
    this.root.querySelector('[data-do="mirror"]').setAttribute("aria-pressed", String(this.mirrored))
    for (const button of this.root.querySelectorAll("[data-tool]")) {
      button.setAttribute("aria-pressed", String(button.dataset.tool === this.tool))
    }
  }

  zoomBy(factor, about = [this.panels.across / 2, this.panels.down / 2]) {
    Object.assign(this, zoomed(this, factor, about, this.panels, this.placed.fit))
    this.draw()
  }

  panBy(dx, dy) {
    const { fit } = this.placed
    this.shift = [this.shift[0] + dx / fit, this.shift[1] + dy / fit]
    this.draw()
  }

  windowBy(dx, dy) {
    Object.assign(this, dragged(this, dx, dy, this.header.levels))
    this.develop()
  }

  act(name) {
    if (name === "in") this.zoomBy(1.25)
    else if (name === "out") this.zoomBy(0.8)
    else if (name === "reset") this.reset()
    else if (name === "invert") {
      this.inverted = !this.inverted
      this.develop()
    } else if (name === "mirror") {
      this.mirrored = !this.mirrored
      this.draw()
    } else if (name === "turn") {
      this.turns = (this.turns + (this.mirrored ? 3 : 1)) % 4 // clockwise as it is seen
      this.draw()
    } else if (name === "full") {
      if (document.fullscreenElement) document.exitFullscreen()
      else this.root.requestFullscreen?.()
    }
  }

  use(tool) {
    this.tool = tool
    if (tool === "ruler") this.measuring = false
    if (this.measuresTwo && tool !== this.lineTool) [this.lines, this.lineTool] = [[], tool]
    this.draw()
  }

  key(event) {
    pressed(this, event)
  }

  // ------------------------------------------------------------------------------------------------- what is pointed at

  // Where an event is in its panel, in device pixels: all panels show the same part of the image.
  at(event) {
    const box = this.canvas.getBoundingClientRect()
    const ratio = this.canvas.width / box.width
    const { across, down } = this.panels
    return [((event.clientX - box.left) * ratio) % across, ((event.clientY - box.top) * ratio) % down]
  }

  onImage(event) {
    const where = this.placed
    return onImage(upright(this.at(event), where.middle, this), where)
  }

  fraction(event) {
    const [x, y] = this.onImage(event)
    return [x / this.header.width, y / this.header.height]
  }

  // Say where the pointer is, and the grey level there.
  point(event) {
    const { width, height } = this.header
    const [column, row] = this.onImage(event).map(Math.floor)
    const inside = column >= 0 && row >= 0 && column < width && row < height
    const value = inside ? inUnits(this.pixels[row * width + column], this.header.grey) : 0
    this.pointer.textContent = inside ? `x ${column}  y ${row}  =  ${Number(value.toFixed(2))}` : ""
  }

  startRuler(event) {
    const start = this.onImage(event)
    this.ruler = [...start, ...start]
  }

  stretchRuler(event) {
    if (this.ruler) this.ruler = [this.ruler[0], this.ruler[1], ...this.onImage(event)]
    this.draw()
  }

  // Whether the tool measures.
  get measures() {
    return this.tool === "ruler" || this.measuresTwo
  }

  // Whether the tool measures by two lines.
  get measuresTwo() {
    return Object.hasOwn(TWO_LINES, this.tool)
  }

  // The first line, then the second; a third begins anew.
  startLine(event) {
    const start = this.onImage(event)
    this.lines = [...(this.lines.length < 2 ? this.lines : []), [...start, ...start]]
  }

  stretchLine(event) {
    const [x, y] = this.lines.at(-1) ?? this.onImage(event)
    this.lines = [...this.lines.slice(0, -1), [x, y, ...this.onImage(event)]]
    this.draw()
  }

  // The ruler by keyboard: arrows move a cross, Enter puts the start there, arrows draw, Enter ends.
  measure(way, step) {
    const { width, height } = this.header
    this.ruler ??= [width / 2, height / 2, width / 2, height / 2]
    if (way) this.ruler = moved(this.ruler, this.measuring, way, step)
    else this.measuring = !this.measuring
    this.draw()
  }

  startRegion(event) {
    this.corner = this.fraction(event)
    this.draft = rectangle(this.corner, this.corner)
  }

  stretchRegion(event) {
    this.draft = rectangle(this.corner, this.fraction(event))
    this.draw()
  }

  dropRegion() {
    this.corner = this.draft = null
  }

  askRegion() {
    this.region = this.draft.map((at) => Number(at.toFixed(4)))
    this.dropRegion()
    this.draw()
    this.ask?.(this.region)
  }

  // Keys of the region tool; tells whether it used the key.
  regionKey(key, way, resize) {
    if (key === "Enter" && this.draft) this.askRegion()
    else if (key === "Enter") this.draft = [0.4, 0.4, 0.6, 0.6]
    else if (key === "Escape" && this.draft) this.draft = null
    else if (way && this.draft) this.draft = nudged(this.draft, way, REGION_STEP, resize)
    else return false
    this.draw()
    return true
  }
}
