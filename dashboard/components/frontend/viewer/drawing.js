// Everything on the canvas: the radiograph in each panel, what lies over it, the region, the ruler.
import { drawRuler } from "./ruler.js"

export function drawAll(viewer, context, ratio) {
  const { width, height } = context.canvas
  context.setTransform(1, 0, 0, 1, 0, 0)
  context.clearRect(0, 0, width, height)
  const { count, columns, across, down } = viewer.panels
  for (let panel = 0; panel < count; panel++) {
    context.save()
    context.translate((panel % columns) * across, Math.floor(panel / columns) * down)
    context.beginPath()
    context.rect(0, 0, across, down)
    context.clip()
    drawPanel(viewer, context, viewer.maps[panel], ratio)
    if (count > 1) {
      context.strokeStyle = "#39424c"
      context.strokeRect(0, 0, across, down)
    }
    context.restore()
  }
}

// ``box`` is left, top, width, height of the image; a place is top, left, height, width, in fractions of it.
/** @param {number[]} place @param {number[]} box */
function boxOf(place, [left, top, width, height]) {
  const [y, x, h, w] = place
  return [left + x * width, top + y * height, w * width, h * height]
}

function drawPanel(viewer, context, map, ratio) {
  const { scale, left, top } = viewer.placed
  /** @type {[number, number, number, number]} */
  const box = [left, top, viewer.header.width * scale, viewer.header.height * scale]
  context.imageSmoothingEnabled = true
  context.imageSmoothingQuality = "high"
  context.drawImage(viewer.plate, ...box)
  context.save()
  context.beginPath()
  context.rect(...box) // padding is not data: what lies on it is not shown
  context.clip()
  for (const overlay of viewer.header.overlays) {
    if (!viewer.shown.has(overlay.group)) continue
    context.imageSmoothingEnabled = overlay.kind !== "heat"
    context.globalAlpha = overlay.kind === "picture" ? 1 : viewer.opacity
    context.drawImage(overlay.picture, ...boxOf(overlay.place, box))
  }
  if (map && viewer.heatShown) drawHeat(viewer, context, map, boxOf(map.place, box), ratio)
  context.globalAlpha = 1
  drawRegion(viewer, context, box, ratio)
  context.restore()
  if (map?.label && viewer.maps.length > 1) drawText(context, map.label, 0, ratio)
  if (map && viewer.heatShown && !map.filled) {
    const below = viewer.panels.down - 20 * OUTLINED.length * ratio
    OUTLINED.forEach((line, index) => drawText(context, line, below + 20 * index * ratio, ratio))
  }
  if (viewer.ruler) {
    const ends = viewer.ruler.map((value, index) => (index % 2 ? top : left) + value * scale)
    drawRuler(context, ends, viewer.distance, ratio)
  }
}

const OUTLINED = ["Outline only: no method was", "shown to mark the finding"]

/** @param {CanvasRenderingContext2D} context @param {string} text @param {number} top @param {number} ratio */
function drawText(context, text, top, ratio) {
  context.font = `${12 * ratio}px sans-serif`
  context.fillStyle = "rgb(0 0 0 / 65%)"
  context.fillRect(0, top, context.measureText(text).width + 12 * ratio, 20 * ratio)
  context.fillStyle = "#e8edf2"
  context.fillText(text, 6 * ratio, top + 14 * ratio)
}

/** @param {any} viewer @param {CanvasRenderingContext2D} context @param {any} map @param {number[]} box @param {number} ratio */
function drawHeat(viewer, context, map, [left, top, width, height], ratio) {
  context.imageSmoothingEnabled = false
  context.globalAlpha = viewer.opacity
  if (map.filled) context.drawImage(map.picture, left, top, width, height)
  if (map.filled && !viewer.contoured) return
  /** @type {(column: number, row: number) => [number, number]} */
  const at = (column, row) => [left + (column * width) / map.width, top + (row * height) / map.height]
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

/** @param {any} viewer @param {CanvasRenderingContext2D} context @param {number[]} box @param {number} ratio */
function drawRegion(viewer, context, [left, top, width, height], ratio) {
  const region = viewer.draft ?? viewer.region
  if (!region) return
  const [x0, y0, x1, y1] = region
  context.strokeStyle = viewer.draft ? "#ffffff" : "#f0e442"
  context.lineWidth = 2 * ratio
  context.setLineDash(viewer.draft ? [6 * ratio, 4 * ratio] : [])
  context.strokeRect(left + x0 * width, top + y0 * height, (x1 - x0) * width, (y1 - y0) * height)
}
