// Colours of masks, and scales of colours, each a list of [red, green, blue] at equal distances.
export const MASK_COLOURS = ["#56b4e9", "#e69f00", "#cc79a7", "#f0e442", "#009e73", "#d55e00"]
export const HEAT = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]]
export const SHARE = [[70, 30, 130], [150, 40, 130], [225, 80, 70], [252, 160, 40], [255, 255, 150]]
// Against the words, nothing, for them: blue to orange tells apart also without red and green.
export const SIGNED = [[120, 190, 255], [30, 90, 190], [0, 0, 0], [190, 90, 0], [255, 190, 70]]

// [red, green, blue] of "#rrggbb".
export function ofHex(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16))
}

// [red, green, blue] on a scale at a value from 0 to 1.
export function tint(value, scale) {
  const at = value * (scale.length - 1)
  const low = Math.min(Math.floor(at), scale.length - 2)
  return scale[low].map((start, c) => start + (scale[low + 1][c] - start) * (at - low))
}
