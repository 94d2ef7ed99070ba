// Everything on the canvas: the radiograph in each panel, what lies over it, the region, the ruler.
import { drawRuler } from "./ruler.js"
import { measuredInWords } from "./two_lines.js"
import { onPanel } from "./turning.js"

const TURN = Math.PI / 2

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
  const { scale, left, top, middle } = viewer.placed
  /** @type {[number, number, number, number]} */
  const box = [left, top, viewer.header.width * scale, viewer.header.height * scale]
  context.imageSmoothingEnabled = true
  context.imageSmoothingQuality = "high"
  context.save()
  context.translate(...middle)
  context.scale(viewer.mirrored ? -1 : 1, 1)
  context.rotate(TURN * viewer.turns)
  context.translate(-middle[0], -middle[1])
  context.drawImage(viewer.plate, ...box)
  context.beginPath()
  context.rect(...box) // padding is not data: what lies on it is not shown
  context.clip()
  for (const overlay of viewer.header.overlays) {
    if (!viewer.shown.has(overlay.group)) continue
    context.imageSmoothingEnabled = overlay.kind !== "heat"
    context.globalAlpha = overlay.kind === "picture" ? 1 : viewer.opacity
    context.drawImage(overlay.picture, ...boxOf(overlay.place, box))
  }
  if (map) drawHeat(viewer, context, map, boxOf(map.place, box), ratio)
  context.globalAlpha = 1
  drawRegion(viewer, context, box, ratio)
  context.restore()
  const told = [viewer.maps.length > 1 ? map?.label : "", viewer.heatShown ? "" : map?.untrusted].filter(Boolean)
  drawWords(context, told.join(". "), viewer.panels.across, ratio)
  if (map && viewer.heatShown && !map.filled) drawWords(context, OUTLINED, viewer.panels.across, ratio, viewer.panels.down)
  /** @param {number[]} line @param {string} words */
  const drawLine = ([x, y, endX, endY], words) => {
    const [startAt, endAt] = [[x, y], [endX, endY]].map(([across, down]) =>
      onPanel([left + across * scale, top + down * scale], middle, viewer))
    drawRuler(context, [startAt[0], startAt[1], endAt[0], endAt[1]], words, ratio)
  }
  if (viewer.ruler) drawLine(viewer.ruler, viewer.distance)
  viewer.lines.forEach((line, at) => {
    const last = at === viewer.lines.length - 1
    drawLine(line, last ? measuredInWords(viewer.lineTool, viewer.lines, viewer.header) : "")
  })
}

// Words at the upper edge of a panel, in as many lines as they need; above its lower edge where that is given.
/** @param {CanvasRenderingContext2D} context @param {string} words @param {number} across @param {number} ratio @param {number} [down] */
function drawWords(context, words, across, ratio, down) {
  if (!words) return
  context.font = `${12 * ratio}px sans-serif`
  const lines = [""]
  for (const word of words.split(" ")) {
    const longer = `${lines.at(-1)} ${word}`.trim()
    if (lines.at(-1) && context.measureText(longer).width > across - 12 * ratio) lines.push(word)
    else lines[lines.length - 1] = longer
  }
  const widest = Math.max(...lines.map((line) => context.measureText(line).width))
  const high = (6 + 15 * lines.length) * ratio
  const top = down === undefined ? 0 : down - high
  context.fillStyle = "rgb(0 0 0 / 70%)"
  context.fillRect(0, top, widest + 12 * ratio, high)
  context.fillStyle = "#e8edf2"
  lines.forEach((line, at) => context.fillText(line, 6 * ratio, top + (14 + 15 * at) * ratio))
}

const OUTLINED = "Outline only: no method was shown to mark the finding"

/** @param {any} viewer @param {CanvasRenderingContext2D} context @param {any} map @param {number[]} box @param {number} ratio */
function drawHeat(viewer, context, map, [left, top, width, height], ratio) {
  context.imageSmoothingEnabled = false
  context.globalAlpha = viewer.opacity
  const outlined = viewer.heatShown && !map.filled
  if (viewer.heatShown && map.filled) context.drawImage(map.picture, left, top, width, height)
  if (!outlined && !viewer.contoured) return
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
  /** @type {[number, number, number, number]} */
  const place = [left + x0 * width, top + y0 * height, (x1 - x0) * width, (y1 - y0) * height]
  if (!viewer.draft && viewer.cover !== "none") drawCover(viewer, context, place, [left, top, width, height], ratio)
  context.strokeStyle = viewer.draft ? "#ffffff" : "#f0e442"
  context.lineWidth = 2 * ratio
  context.setLineDash(viewer.draft ? [6 * ratio, 4 * ratio] : [])
  context.strokeRect(...place)
}

// The region as the models are given it: even grey, or blurred.
/** @param {any} viewer @param {CanvasRenderingContext2D} context @param {[number, number, number, number]} place @param {[number, number, number, number]} box @param {number} ratio */
function drawCover(viewer, context, place, box, ratio) {
  context.save()
  context.globalAlpha = 1
  context.beginPath()
  context.rect(...place)
  context.clip()
  if (viewer.cover === "blur") {
    context.filter = `blur(${Math.max(box[2] * 0.04, 2 * ratio)}px)`
    context.drawImage(viewer.plate, ...box)
  } else {
    context.fillStyle = "#808080"
    context.fillRect(...place)
  }
  context.restore()
}
