// Where the image lies. A canvas has panels side by side, all with the same part of the image; lengths are in device
// pixels of the canvas, ``zoom`` 1 fits the image into its panel, and ``shift`` moves it, in pixels of the image at zoom 1.

import { lies } from "./turning.js"

const MOST_ZOOM = 20
const CLICK = 0.015 // of the image: a drag that is shorter is a click
const CLICKED = 0.125 // side of the region that a click takes

const NARROWEST = 130 // pixels of the screen, of a panel beside others

// How many panels across and down, and the size of each; ``ratio`` is device pixels in one of the screen.
export function panelsOf(count, width, height, ratio = 1) {
  const panels = Math.max(count, 1)
  const most = panels === 1 ? 1 : panels <= 4 ? 2 : 3
  const columns = Math.max(Math.min(most, Math.floor(width / ratio / NARROWEST)), 1)
  const rows = Math.ceil(panels / columns)
  return { count: panels, columns, rows, across: width / columns, down: height / rows }
}

// Scale of the image in a panel, its middle there, and its left upper corner while it is upright; ``fit`` is the scale at
// zoom 1.
export function placed(image, panel, { zoom, shift, turns = 0 }) {
  const [wide, high] = lies(turns) ? [image.height, image.width] : [image.width, image.height]
  const fit = Math.min(panel.across / wide, panel.down / high)
  const scale = fit * zoom
  const middle = [panel.across / 2 + shift[0] * fit, panel.down / 2 + shift[1] * fit]
  return { fit, scale, middle, left: middle[0] - (image.width * scale) / 2, top: middle[1] - (image.height * scale) / 2 }
}

// Zoom and shift after zooming about a point of the panel, which stays where it is; zoomed out is back in place.
/** @param {{zoom: number, shift: number[]}} view @param {number} factor @param {number[]} point @param {any} panel @param {number} fit */
export function zoomed({ zoom, shift }, factor, [x, y], panel, fit) {
  const next = Math.min(Math.max(zoom * factor, 1), MOST_ZOOM)
  if (next === 1) return { zoom: 1, shift: [0, 0] }
  const about = [(x - panel.across / 2) / fit, (y - panel.down / 2) / fit]
  return { zoom: next, shift: about.map((offset, axis) => offset - (offset - shift[axis]) * (next / zoom)) }
}

// [column, row] of the image, with fractions, at a point of the panel.
/** @param {number[]} point @param {{scale: number, left: number, top: number}} at */
export function onImage([x, y], { scale, left, top }) {
  return [(x - left) / scale, (y - top) / scale]
}

// The rectangle between two corners, fractions of the image; a mere click takes an eighth of the image around it.
/** @param {number[]} corner @param {number[]} other */
export function rectangle([x0, y0], [x1, y1]) {
  if (Math.abs(x1 - x0) < CLICK && Math.abs(y1 - y0) < CLICK) {
    return [x0 - CLICKED / 2, y0 - CLICKED / 2, x0 + CLICKED / 2, y0 + CLICKED / 2]
  }
  return [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)]
}

// A rectangle moved by steps across and down, or with its lower right corner moved; it keeps at least a step of size.
export function nudged([x0, y0, x1, y1], [across, down], step, resize) {
  const [dx, dy] = [across * step, down * step]
  if (resize) return [x0, y0, Math.max(x1 + dx, x0 + step), Math.max(y1 + dy, y0 + step)]
  return [x0 + dx, y0 + dy, x1 + dx, y1 + dy]
}
