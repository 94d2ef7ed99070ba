// Quarter turns and mirroring of what is shown: the image lies around its middle, is turned clockwise, then mirrored.

const COS = [1, 0, -1, 0]
const SIN = [0, 1, 0, -1]

// Across and down are exchanged at odd turns.
export const lies = (turns) => turns % 2 === 1

// A point of the panel as it would be without turning and mirroring.
/** @param {number[]} point @param {number[]} middle @param {{turns: number, mirrored: boolean}} view */
export function upright([x, y], [middleX, middleY], { turns, mirrored }) {
  const [dx, dy] = [(mirrored ? -1 : 1) * (x - middleX), y - middleY]
  return [middleX + COS[turns] * dx + SIN[turns] * dy, middleY - SIN[turns] * dx + COS[turns] * dy]
}

// Where a point of the upright image is on the panel.
/** @param {number[]} point @param {number[]} middle @param {{turns: number, mirrored: boolean}} view */
export function onPanel([x, y], [middleX, middleY], { turns, mirrored }) {
  const [dx, dy] = [x - middleX, y - middleY]
  const across = COS[turns] * dx - SIN[turns] * dy
  return [middleX + (mirrored ? -across : across), middleY + SIN[turns] * dx + COS[turns] * dy]
}

// What the reader must know of it.
/** @param {{turns: number, mirrored: boolean}} view */
export function turnedInWords({ turns, mirrored }) {
  return [turns ? `turned ${90 * turns}°` : "", mirrored ? "MIRRORED: left and right are exchanged" : ""].filter(Boolean).join(", ")
}
