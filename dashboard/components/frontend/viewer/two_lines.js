// What is measured by two lines, drawn one after the other: an angle, or the cardiothoracic ratio. A line is
// [x, y, x, y] of its ends, in pixels of the image.

export const TWO_LINES = { angle: "Angle", ratio: "Heart / chest" }

// Across and down, in the unit of the spacing.
/** @param {number[]} line @param {{spacing: number[] | null, shrunk: number[]}} header */
function extent([x, y, endX, endY], { spacing, shrunk }) {
  const [down, across] = spacing ?? shrunk
  return [(endX - x) * across, (endY - y) * down]
}

// The smaller angle between two lines, degrees, 0 to 90, as Cobb's.
/** @param {number[][]} lines @param {{spacing: number[] | null, shrunk: number[]}} header */
export function angle([one, other], header) {
  const [[ax, ay], [bx, by]] = [extent(one, header), extent(other, header)]
  return (Math.atan2(Math.abs(ax * by - ay * bx), Math.abs(ax * bx + ay * by)) * 180) / Math.PI
}

// Width of the heart through that of the chest: only what the lines go across counts.
/** @param {number[][]} lines */
export function ratio([heart, chest]) {
  return Math.abs(heart[2] - heart[0]) / Math.abs(chest[2] - chest[0])
}

// What is measured so far, in words; "" while it is nothing.
/** @param {string} kind @param {number[][]} lines @param {{spacing: number[] | null, shrunk: number[]}} header */
export function measuredInWords(kind, lines, header) {
  if (kind === "angle") return lines.length < 2 ? "first line; draw the second" : `${angle(lines, header).toFixed(1)}°`
  if (lines.length < 2) return "width of the heart; draw that of the chest"
  const found = ratio(lines)
  return Number.isFinite(found) ? `heart / chest ${found.toFixed(2)}` : "the chest's line must go across"
}
