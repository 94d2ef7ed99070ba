// The radiograph viewer. All state lives here, in the browser; nothing is sent to the server.
// It is loaded again whenever its data change: the view is kept while the study stays the same and reset when it changes.
// viewer_mount.js shows it alone, reading.js within the reading page.

const MASK_COLOURS = ["#56b4e9", "#e69f00", "#cc79a7", "#f0e442", "#009e73", "#d55e00"]
const HEAT = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]]
const PRESETS = [
  ["Full", 0, 1, "all grey levels"],
  ["Contrast", 0.03, 0.97, "3rd to 97th percentile"],
  ["Lung", 0.01, 0.6, "darker part of the image"],
  ["Dense", 0.4, 0.995, "mediastinum and bone"],
]
const SHARE = [[70, 30, 130], [150, 40, 130], [225, 80, 70], [252, 160, 40], [255, 255, 150]]
// Against the words, nothing, for them: blue to orange tells apart also without red and green.
const SIGNED = [[120, 190, 255], [30, 90, 190], [0, 0, 0], [190, 90, 0], [255, 190, 70]]
const HEAT_EVENT = "cxr-lens-heat"

function unpack(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const length = view.getUint32(0, true)
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)))
  const count = header.width * header.height
  let at = 4 + length
  const pixels = new Uint16Array(bytes.slice(at, at + 2 * count).buffer)
  at += 2 * count
  for (const overlay of header.overlays) {
    const size = overlay.width * overlay.height
    overlay.values = bytes.slice(at, at + size)
    at += size
  }
  return { header, pixels }
}

function quantile(pixels, levels, share) {
  // Of every 7th pixel: presets need no more.
  const histogram = new Uint32Array(levels + 1)
  let total = 0
  for (let i = 0; i < pixels.length; i += 7, total++) histogram[Math.min(pixels[i], levels)]++
  let seen = 0
  for (let value = 0; value <= levels; value++) {
    seen += histogram[value]
    if (seen >= share * total) return value
  }
  return levels
}

function colour(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16))
}

function heat(value, stops = HEAT) {
  const at = value * (stops.length - 1)
  const low = Math.min(Math.floor(at), stops.length - 2)
  return stops[low].map((start, c) => start + (stops[low + 1][c] - start) * (at - low))
}

// A heat map as a picture, one square a cell; its values are -127 to 127. Where it is strong, it is opaque.
function paintHeat({ width, height, values, signed }) {
  const canvas = new OffscreenCanvas(width, height)
  const context = canvas.getContext("2d")
  const image = context.createImageData(width, height)
  values.forEach((value, i) => {
    const tint = heat(signed ? (value / 127 + 1) / 2 : value / 127, signed ? SIGNED : SHARE)
    image.data.set([...tint, Math.min(255, Math.round(Math.abs(value) * 2.6))], 4 * i)
  })
  context.putImageData(image, 0, 0)
  return canvas
}

// Edges between the strongest tenth of the cells and the rest, as line segments in cells.
function contour({ width, height, values }) {
  const sorted = [...values].sort((a, b) => b - a)
  const limit = Math.max(sorted[Math.floor(sorted.length / 10)], 1)
  const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && values[y * width + x] >= limit
  const lines = []
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (!inside(x, y)) continue
      if (!inside(x - 1, y)) lines.push([x, y, x, y + 1])
      if (!inside(x + 1, y)) lines.push([x + 1, y, x + 1, y + 1])
      if (!inside(x, y - 1)) lines.push([x, y, x + 1, y])
      if (!inside(x, y + 1)) lines.push([x, y + 1, x + 1, y + 1])
    }
  }
  return lines
}

function paint(overlay, index) {
  // Overlay as an image: a mask is a faint fill with a firm edge, a heat map is one square a cell, a picture hides all.
  const { width, height, values, kind } = overlay
  const canvas = new OffscreenCanvas(width, height)
  const context = canvas.getContext("2d")
  const image = context.createImageData(width, height)
  const rgb = colour(MASK_COLOURS[index % MASK_COLOURS.length])
  const edge = Math.max(1, Math.round(width / 384))
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      if (!values[i] && kind !== "picture") continue
      let tint = rgb
      let alpha
      if (kind === "picture") {
        tint = [values[i], values[i], values[i]]
        alpha = 255
      } else if (kind === "mask") {
        const inside =
          x >= edge && x < width - edge && y >= edge && y < height - edge &&
          values[i - edge] && values[i + edge] && values[i - edge * width] && values[i + edge * width]
        alpha = inside ? 46 : 255
      } else {
        tint = heat(values[i] / 255)
        alpha = 60 + (values[i] * 195) / 255
      }
      image.data.set([...tint, alpha], 4 * i)
    }
  }
  context.putImageData(image, 0, 0)
  return canvas
}

const TOOLS = { w: "window", m: "pan", r: "ruler", b: "region" }

class Viewer {
  constructor(root) {
    this.root = root
    this.canvas = root.querySelector("canvas")
    this.readout = root.querySelector(".readout")
    this.pointer = root.querySelector(".pointer")
    this.overlayBar = root.querySelector(".overlays")
    this.tool = "window"
    this.shown = new Set()
    this.opacity = 0.8
    this.touches = new Map()
    this.ruler = null // [x, y, x, y] in pixels of the image
    this.heatBar = root.querySelector(".heat")
    this.maps = [] // heat maps, a panel each
    this.heatShown = true
    this.contoured = false
    this.region = null // left, top, right, bottom, fractions of the image
    this.draft = null // the same, while it is drawn
    this.events = new AbortController()
    this.listen()
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
    this.windows = PRESETS.map(([, low, high]) => {
      const bottom = low === 0 ? 0 : quantile(pixels, header.levels, low)
      const top = high === 1 ? header.levels : quantile(pixels, header.levels, high)
      return [Math.max(top - bottom, 1), (top + bottom) / 2]
    })
    for (const overlay of header.overlays) overlay.picture = paint(overlay, header.overlays.indexOf(overlay))
    this.root.querySelector('[data-tool="region"]').hidden = !header.regions
    const measure = header.spacing
      ? "Drag measures in millimetres; they are on the detector, where the chest is about 5 % larger, unless the image was calibrated"
      : "Drag measures in pixels: how large one is, is not known"
    this.root.querySelector('[data-tool="ruler"]').title = `${measure} (R; then arrows and Enter)`
    this.root.style.setProperty("--ratio", String(header.height / header.width))
    this.canvas.setAttribute("aria-label", `Radiograph ${header.study}, ${header.width} by ${header.height} pixels`)
    this.buildPresets()
    this.buildOverlays()
    if (changed) {
      this.maps = []
      this.heard = this.region = this.draft = null
      this.buildHeat()
    }
    if (changed) this.reset()
    else this.develop()
  }

  // Heat maps and the region come by a message of their own: the image need not be sent again for them.
  hear(detail) {
    if (detail.study !== this.header?.study) return
    this.region = detail.region
    if (detail.maps !== this.heard) {
      this.heard = detail.maps
      this.maps = JSON.parse(detail.maps).map((map) => {
        const values = Int8Array.from(atob(map.values), (letter) => letter.charCodeAt(0))
        const found = { ...map, values }
        return { ...found, picture: paintHeat(found), lines: contour(found) }
      })
      this.heatShown = true
    }
    this.buildHeat(detail.scale)
    this.draw()
  }

  buildHeat(scale) {
    this.root.dataset.maps = this.maps.length
    this.root.dataset.region = this.region ? this.region.map((at) => at.toFixed(3)).join(",") : ""
    this.heatBar.hidden = !this.maps.length
    if (!this.maps.length) return this.heatBar.replaceChildren()
    const button = (words, name) => {
      const element = document.createElement("button")
      element.type = "button"
      element.textContent = words
      element.setAttribute("aria-pressed", String(this[name]))
      element.onclick = () => {
        this[name] = !this[name]
        element.setAttribute("aria-pressed", String(this[name]))
        this.draw()
      }
      return element
    }
    const label = document.createElement("label")
    const slider = document.createElement("input")
    Object.assign(slider, { type: "range", min: "0", max: "100", value: String(this.opacity * 100) })
    slider.setAttribute("aria-label", "Heat map opacity")
    slider.oninput = () => {
      this.opacity = slider.value / 100
      this.draw()
    }
    label.append("Opacity", slider)
    const bar = document.createElement("canvas")
    Object.assign(bar, { width: 128, height: 1 })
    const signed = this.maps.some((map) => map.signed)
    const context = bar.getContext("2d")
    for (let x = 0; x < 128; x++) {
      context.fillStyle = `rgb(${heat(x / 127, signed ? SIGNED : SHARE).map(Math.round).join(" ")})`
      context.fillRect(x, 0, 1, 1)
    }
    const legend = document.createElement("span")
    legend.className = "scale"
    legend.setAttribute("role", "img")
    const [low, high] = signed ? [`against −${scale}×`, `for +${scale}×`] : ["0", `${scale}×`]
    legend.setAttribute("aria-label", `Colour scale from ${low} to ${high} the map's mean strength`)
    legend.append(low, bar, `${high} its mean`)
    this.heatBar.replaceChildren(button("Heat map", "heatShown"), button("Contour", "contoured"), label, legend)
  }

  // Panels side by side: how many across and down, and the size of each in device pixels.
  get layout() {
    const count = Math.max(this.maps.length, 1)
    const columns = count === 1 ? 1 : count <= 4 ? 2 : 3
    const rows = Math.ceil(count / columns)
    return { count, columns, across: this.canvas.width / columns, down: this.canvas.height / rows }
  }

  buildPresets() {
    const bar = this.root.querySelector(".presets")
    bar.replaceChildren(
      ...PRESETS.map(([name, , , what], index) => {
        const button = document.createElement("button")
        button.type = "button"
        button.textContent = name
        button.title = `${name}: ${what} (${index + 1})`
        button.onclick = () => this.preset(index)
        return button
      }),
    )
  }

  buildOverlays() {
    const groups = [...new Set(this.header.overlays.map((overlay) => overlay.group))]
    this.shown = new Set([...this.shown].filter((group) => groups.includes(group)))
    this.overlayBar.hidden = groups.length === 0
    const parts = groups.map((group) => {
      const button = document.createElement("button")
      button.type = "button"
      button.dataset.overlay = group
      button.textContent = group
      button.setAttribute("aria-pressed", String(this.shown.has(group)))
      button.onclick = () => this.toggle(group)
      return button
    })
    if (groups.length) {
      const label = document.createElement("label")
      const slider = document.createElement("input")
      slider.type = "range"
      slider.min = "0"
      slider.max = "100"
      slider.value = String(this.opacity * 100)
      slider.setAttribute("aria-label", "Overlay opacity")
      slider.oninput = () => {
        this.opacity = slider.value / 100
        this.draw()
      }
      label.append("Opacity", slider)
      parts.push(label)
    }
    this.header.overlays.forEach((overlay, index) => {
      if (overlay.kind !== "mask") return
      const item = document.createElement("span")
      item.className = "legend"
      item.dataset.group = overlay.group
      const swatch = document.createElement("i")
      swatch.style.color = MASK_COLOURS[index % MASK_COLOURS.length]
      item.append(swatch, overlay.label)
      parts.push(item)
    })
    this.overlayBar.replaceChildren(...parts)
    this.showLegend()
  }

  showLegend() {
    const on = this.shown.size > 0
    for (const label of this.overlayBar.querySelectorAll("label")) label.style.display = on ? "" : "none"
    for (const item of this.overlayBar.querySelectorAll(".legend")) {
      item.style.display = this.shown.has(item.dataset.group) ? "" : "none"
    }
  }

  toggle(group) {
    if (!this.shown.delete(group)) this.shown.add(group)
    for (const button of this.overlayBar.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(this.shown.has(button.dataset.overlay)))
    }
    this.showLegend()
    this.draw()
  }

  only(group) {
    this.shown = new Set(group ? [group] : [])
    this.draw()
  }

  reset() {
    this.ruler = null
    this.zoom = 1
    this.shift = [0, 0]
    this.inverted = false
    this.preset(0)
  }

  preset(index) {
    ;[this.window, this.level] = this.windows[index]
    this.develop()
  }

  develop() {
    // Grey levels to screen brightness through a table, then draw.
    const { levels } = this.header
    const table = new Uint8ClampedArray(levels + 1)
    const bottom = this.level - this.window / 2
    for (let value = 0; value <= levels; value++) {
      const bright = (255 * (value - bottom)) / this.window
      table[value] = this.inverted ? 255 - Math.min(Math.max(bright, 0), 255) : bright
    }
    const out = new Uint32Array(this.plateImage.data.buffer)
    for (let i = 0; i < out.length; i++) {
      const bright = table[this.pixels[i]]
      out[i] = 0xff000000 | (bright << 16) | (bright << 8) | bright
    }
    this.plateContext.putImageData(this.plateImage, 0, 0)
    this.draw()
  }

  // Where the image lies on the canvas, in device pixels.
  placed() {
    const { width, height } = this.header
    const { across, down } = this.layout
    const fit = Math.min(across / width, down / height)
    const scale = fit * this.zoom
    return {
      scale,
      left: across / 2 + this.shift[0] * fit - (width * scale) / 2,
      top: down / 2 + this.shift[1] * fit - (height * scale) / 2,
      fit,
    }
  }

  draw() {
    if (!this.header) return
    const ratio = window.devicePixelRatio || 1
    const box = this.canvas.getBoundingClientRect()
    const [across, down] = [Math.round(box.width * ratio), Math.round(box.height * ratio)]
    if (!across || !down) return
    if (this.canvas.width !== across || this.canvas.height !== down) {
      this.canvas.width = across
      this.canvas.height = down
    }
    const context = this.canvas.getContext("2d")
    context.setTransform(1, 0, 0, 1, 0, 0)
    context.clearRect(0, 0, across, down)
    const { count, columns, across: wide, down: high } = this.layout
    for (let panel = 0; panel < count; panel++) {
      context.save()
      context.translate((panel % columns) * wide, Math.floor(panel / columns) * high)
      context.beginPath()
      context.rect(0, 0, wide, high)
      context.clip()
      this.drawPanel(context, this.maps[panel], ratio)
      if (count > 1) {
        context.strokeStyle = "#39424c"
        context.strokeRect(0, 0, wide, high)
      }
      context.restore()
    }
    this.report()
  }

  drawPanel(context, map, ratio) {
    const { scale, left, top } = this.placed()
    const [width, height] = [this.header.width * scale, this.header.height * scale]
    context.imageSmoothingEnabled = true
    context.imageSmoothingQuality = "high"
    context.drawImage(this.plate, left, top, width, height)
    context.save()
    context.beginPath()
    context.rect(left, top, width, height) // padding is not data: what lies on it is not shown
    context.clip()
    for (const overlay of this.header.overlays) {
      if (!this.shown.has(overlay.group)) continue
      const [y, x, h, w] = overlay.place
      context.imageSmoothingEnabled = overlay.kind !== "heat"
      context.globalAlpha = overlay.kind === "picture" ? 1 : this.opacity
      context.drawImage(overlay.picture, left + x * width, top + y * height, w * width, h * height)
    }
    if (map && this.heatShown) {
      const [y, x, h, w] = map.place
      const box = [left + x * width, top + y * height, w * width, h * height]
      context.imageSmoothingEnabled = false
      context.globalAlpha = this.opacity
      context.drawImage(map.picture, ...box)
      if (this.contoured) {
        const at = (column, row) => [box[0] + (column * box[2]) / map.width, box[1] + (row * box[3]) / map.height]
        context.globalAlpha = 1
        context.strokeStyle = "#ffffff"
        context.lineWidth = 1.5 * ratio
        context.beginPath()
        for (const [x0, y0, x1, y1] of map.lines) {
          context.moveTo(...at(x0, y0))
          context.lineTo(...at(x1, y1))
        }
        context.stroke()
      }
    }
    context.globalAlpha = 1
    const region = this.draft ?? this.region
    if (region) {
      const [x0, y0, x1, y1] = region
      context.strokeStyle = this.draft ? "#ffffff" : "#f0e442"
      context.lineWidth = 2 * ratio
      context.setLineDash(this.draft ? [6 * ratio, 4 * ratio] : [])
      context.strokeRect(left + x0 * width, top + y0 * height, (x1 - x0) * width, (y1 - y0) * height)
    }
    context.restore()
    if (map?.label && this.maps.length > 1) {
      context.font = `${12 * ratio}px sans-serif`
      context.fillStyle = "rgb(0 0 0 / 65%)"
      context.fillRect(0, 0, context.measureText(map.label).width + 12 * ratio, 20 * ratio)
      context.fillStyle = "#e8edf2"
      context.fillText(map.label, 6 * ratio, 14 * ratio)
    }
    if (this.ruler) this.drawRuler(context, left, top, scale, ratio)
  }

  drawRuler(context, left, top, scale, ratio) {
    const [x, y, endX, endY] = this.ruler.map((value, index) => (index % 2 ? top : left) + value * scale)
    const arm = 7 * ratio
    for (const [colour, width] of [["#000", 4], ["#f0e442", 1.5]]) {
      context.strokeStyle = colour
      context.lineWidth = width * ratio
      context.beginPath()
      context.moveTo(x, y)
      context.lineTo(endX, endY)
      for (const [atX, atY] of [[x, y], [endX, endY]]) {
        context.moveTo(atX - arm, atY)
        context.lineTo(atX + arm, atY)
        context.moveTo(atX, atY - arm)
        context.lineTo(atX, atY + arm)
      }
      context.stroke()
    }
    context.font = `${13 * ratio}px sans-serif`
    const words = this.distance()
    const across = context.measureText(words).width
    const textX = Math.min(Math.max((x + endX) / 2 + arm, 4), this.canvas.width - across - 4)
    const textY = Math.min(Math.max((y + endY) / 2 - arm, 16 * ratio), this.canvas.height - 6)
    context.fillStyle = "rgb(0 0 0 / 70%)"
    context.fillRect(textX - 4, textY - 14 * ratio, across + 8, 19 * ratio)
    context.fillStyle = "#f0e442"
    context.fillText(words, textX, textY)
  }

  // Of the ruler, in words: millimetres only where the study tells how far its pixels are apart, else its own pixels.
  distance() {
    const [x, y, endX, endY] = this.ruler
    const spacing = this.header.spacing
    const [down, across] = this.header.shrunk
    if (!spacing) return `${Math.hypot((endX - x) * across, (endY - y) * down).toFixed(0)} pixels`
    return `${Math.hypot((endX - x) * spacing[1], (endY - y) * spacing[0]).toFixed(1)} mm`
  }

  report() {
    const times = this.zoom.toFixed(this.zoom < 10 ? 1 : 0)
    this.readout.textContent =
      `W ${Math.round(this.window)}  L ${Math.round(this.level)}  ·  ${times}×` + (this.inverted ? "  ·  inverted" : "")
    Object.assign(this.root.dataset, {
      window: Math.round(this.window), level: Math.round(this.level), zoom: this.zoom.toFixed(3),
      inverted: this.inverted, tool: this.tool, study: this.header.study,
      ruler: this.ruler ? this.distance() : "", overlay: [...this.shown].join(" "),
    })
    this.root.querySelector('[data-do="invert"]').setAttribute("aria-pressed", String(this.inverted))
    for (const button of this.root.querySelectorAll("[data-tool]")) {
      button.setAttribute("aria-pressed", String(button.dataset.tool === this.tool))
    }
  }

  zoomBy(factor, x = this.layout.across / 2, y = this.layout.down / 2) {
    // The point (x, y) of a panel stays where it is.
    const next = Math.min(Math.max(this.zoom * factor, 1), 20)
    const { fit } = this.placed()
    const real = next / this.zoom
    const centre = [this.layout.across / 2, this.layout.down / 2]
    ;[x, y].forEach((at, axis) => {
      const offset = (at - centre[axis]) / fit
      this.shift[axis] = offset - (offset - this.shift[axis]) * real
    })
    this.zoom = next
    if (next === 1) this.shift = [0, 0] // zoomed out is back in place
    this.draw()
  }

  panBy(dx, dy) {
    const { fit } = this.placed()
    this.shift[0] += dx / fit
    this.shift[1] += dy / fit
    this.draw()
  }

  windowBy(dx, dy) {
    // Right widens the window, up lowers the level (brighter), as in most reading software.
    const step = this.header.levels / 600
    this.window = Math.min(Math.max(this.window + dx * step, 1), 2 * this.header.levels)
    this.level = Math.min(Math.max(this.level + dy * step, -this.header.levels), 2 * this.header.levels)
    this.develop()
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect()
    const ratio = this.canvas.width / box.width
    const { across, down } = this.layout // all panels show the same part of the image
    return [((event.clientX - box.left) * ratio) % across, ((event.clientY - box.top) * ratio) % down]
  }

  fraction(event) {
    const [x, y] = this.at(event)
    const { scale, left, top } = this.placed()
    return [(x - left) / (scale * this.header.width), (y - top) / (scale * this.header.height)]
  }

  // The rectangle between two corners; a mere click takes an eighth of the image around it.
  span([x0, y0], [x1, y1]) {
    if (Math.abs(x1 - x0) < 0.015 && Math.abs(y1 - y0) < 0.015) return [x0 - 0.0625, y0 - 0.0625, x0 + 0.0625, y0 + 0.0625]
    return [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)]
  }

  askRegion() {
    const region = this.draft.map((at) => Number(at.toFixed(4)))
    this.region = region
    this.draft = null
    this.draw()
    this.ask?.(region)
  }

  // Keys of the region tool; tells whether it used the key.
  regionKey(event) {
    const step = 0.02
    const move = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key]
    if (event.key === "Enter" && !this.draft) this.draft = [0.4, 0.4, 0.6, 0.6]
    else if (event.key === "Enter") this.askRegion()
    else if (event.key === "Escape" && this.draft) this.draft = null
    else if (move && this.draft) {
      const [dx, dy] = move
      const [x0, y0, x1, y1] = this.draft
      this.draft = event.shiftKey
        ? [x0, y0, Math.max(x1 + dx, x0 + step), Math.max(y1 + dy, y0 + step)]
        : [x0 + dx, y0 + dy, x1 + dx, y1 + dy]
    } else return false
    this.draw()
    return true
  }

  onImage(event) {
    const [x, y] = this.at(event)
    const { scale, left, top } = this.placed()
    return [(x - left) / scale, (y - top) / scale]
  }

  point(event) {
    const [column, row] = this.onImage(event).map(Math.floor)
    const inside = column >= 0 && row >= 0 && column < this.header.width && row < this.header.height
    this.pointer.textContent = inside
      ? `x ${column}  y ${row}  =  ${this.pixels[row * this.header.width + column]}`
      : ""
  }

  listen() {
    const { canvas, root } = this
    const options = { signal: this.events.signal }
    const on = (target, name, call, more = {}) => target.addEventListener(name, call, { ...options, ...more })

    on(canvas, "wheel", (event) => {
      event.preventDefault()
      this.zoomBy(Math.exp(-event.deltaY * 0.0015), ...this.at(event))
    }, { passive: false })
    on(canvas, "contextmenu", (event) => event.preventDefault())
    on(canvas, "dblclick", () => this.reset())
    on(canvas, "pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId)
      canvas.focus({ preventScroll: true })
      if (this.tool === "ruler" && event.button === 0 && !event.shiftKey) {
        const start = this.onImage(event)
        this.ruler = [...start, ...start]
      }
      this.touches.set(event.pointerId, [event.clientX, event.clientY])
      if (this.tool === "region" && this.touches.size === 1) {
        this.corner = this.fraction(event)
        this.draft = this.span(this.corner, this.corner)
      }
    })
    on(canvas, "pointermove", (event) => {
      this.point(event)
      const before = this.touches.get(event.pointerId)
      if (!before) return
      const now = [event.clientX, event.clientY]
      const ratio = window.devicePixelRatio || 1
      const [dx, dy] = [now[0] - before[0], now[1] - before[1]]
      if (this.touches.size === 2) {
        this.corner = this.draft = null
        const other = [...this.touches].find(([id]) => id !== event.pointerId)[1]
        const apart = (p) => Math.hypot(p[0] - other[0], p[1] - other[1])
        const middle = { clientX: (now[0] + other[0]) / 2, clientY: (now[1] + other[1]) / 2 }
        this.panBy((dx / 2) * ratio, (dy / 2) * ratio)
        this.zoomBy(apart(now) / Math.max(apart(before), 1), ...this.at(middle))
      } else if (this.corner) {
        this.draft = this.span(this.corner, this.fraction(event))
        this.draw()
      } else if (this.tool === "pan" || event.shiftKey || event.buttons > 1) {
        this.panBy(dx * ratio, dy * ratio)
      } else if (this.tool === "ruler") {
        this.ruler?.splice(2, 2, ...this.onImage(event))
        this.draw()
      } else {
        this.windowBy(dx, dy)
      }
      this.touches.set(event.pointerId, now)
    })
    for (const name of ["pointerup", "pointercancel"]) {
      on(canvas, name, (event) => {
        this.touches.delete(event.pointerId)
        if (this.corner && name === "pointerup") this.askRegion()
        else if (this.corner) this.draft = null
        this.corner = null
      })
    }
    on(window, HEAT_EVENT, ({ detail }) => this.hear(detail))
    on(canvas, "pointerleave", () => (this.pointer.textContent = ""))
    on(canvas, "keydown", (event) => this.key(event))
    on(root, "click", (event) => {
      const button = event.target.closest("button")
      if (button?.dataset.tool) {
        this.use(button.dataset.tool)
      } else if (button?.dataset.do) {
        this.act(button.dataset.do)
      }
    })
  }

  use(tool) {
    this.tool = tool
    if (tool === "ruler") this.measuring = false
    this.draw()
  }

  // The ruler by keyboard: arrows move a cross, Enter puts the start there, arrows draw, Enter ends.
  measure(way, step) {
    const { width, height } = this.header
    this.ruler ??= [width / 2, height / 2, width / 2, height / 2]
    if (way) {
      const end = [this.ruler[2] + way[0] * step, this.ruler[3] + way[1] * step]
      this.ruler = this.measuring ? [this.ruler[0], this.ruler[1], ...end] : [...end, ...end]
    } else {
      this.measuring = !this.measuring
    }
    this.draw()
  }

  act(name) {
    if (name === "in") this.zoomBy(1.25)
    else if (name === "out") this.zoomBy(0.8)
    else if (name === "reset") this.reset()
    else if (name === "invert") {
      this.inverted = !this.inverted
      this.develop()
    } else if (name === "full") {
      if (document.fullscreenElement) document.exitFullscreen()
      else this.root.requestFullscreen?.()
    }
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return
    if (this.tool === "region" && this.regionKey(event)) {
      event.preventDefault()
      event.stopPropagation()
      return
    }
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }
    if (this.tool === "ruler" && (arrows[event.key] || event.key === "Enter")) {
      this.measure(arrows[event.key], event.shiftKey ? 20 : 2)
      event.preventDefault()
      event.stopPropagation()
      return
    }
    const keys = { "+": "in", "=": "in", "-": "out", 0: "reset", " ": "reset", i: "invert", f: "full" }
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key
    if (arrows[key]) {
      const [dx, dy] = arrows[key]
      if (event.shiftKey) this.windowBy(dx * 12, dy * 12)
      else this.panBy(-dx * 40, -dy * 40)
    } else if (keys[key]) this.act(keys[key])
    else if (key >= "1" && key <= String(PRESETS.length)) this.preset(Number(key) - 1)
    else if (TOOLS[key] && (key !== "b" || this.header.regions)) this.use(TOOLS[key])
    else return
    event.preventDefault()
    event.stopPropagation()
  }
}
