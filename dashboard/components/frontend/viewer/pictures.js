// Masks and heat maps as pictures, one pixel a cell, and the contour of a heat map as lines.
import { HEAT, MASK_COLOURS, SHARE, SIGNED, ofHex, tint } from "./colours.js"

function painted({ width, height, values }, colour) {
  const canvas = new OffscreenCanvas(width, height)
  const context = canvas.getContext("2d")
  const image = context.createImageData(width, height)
  values.forEach((value, i) => {
    const rgba = colour(value, i)
    if (rgba) image.data.set(rgba, 4 * i)
  })
  context.putImageData(image, 0, 0)
  return canvas
}

// A heat map; its values are -127 to 127. Where it is strong, it is opaque.
export function paintHeat(map) {
  return painted(map, (value) => {
    const rgb = map.signed ? tint((value / 127 + 1) / 2, SIGNED) : tint(value / 127, SHARE)
    return [...rgb, Math.min(255, Math.round(Math.abs(value) * 2.6))]
  })
}

// An overlay: a mask is a faint fill with a firm edge, a heat map is one square a cell, a picture hides all.
export function paintOverlay(overlay, index) {
  const { width, height, values, kind } = overlay
  if (kind === "picture") return painted(overlay, (value) => [value, value, value, 255])
  if (kind === "heat") return painted(overlay, (value) => value && [...tint(value / 255, HEAT), 60 + (value * 195) / 255])
  const rgb = ofHex(MASK_COLOURS[index % MASK_COLOURS.length])
  const edge = Math.max(1, Math.round(width / 384))
  return painted(overlay, (value, i) => {
    if (!value) return null
    const [x, y] = [i % width, Math.floor(i / width)]
    const inside =
      x >= edge && x < width - edge && y >= edge && y < height - edge &&
      values[i - edge] && values[i + edge] && values[i - edge * width] && values[i + edge * width]
    return [...rgb, inside ? 46 : 255]
  })
}

// Edges between the strongest tenth of the cells and the rest, as line segments in cells. Cells that are as strong as those
// outside the tenth are outside too, unless none is stronger.
export function contour({ width, height, values }) {
  const sorted = [...values].sort((a, b) => b - a)
  const outside = sorted[Math.floor(sorted.length / 10)]
  const limit = Math.max(sorted[0] > outside ? outside + 1 : outside, 1)
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
