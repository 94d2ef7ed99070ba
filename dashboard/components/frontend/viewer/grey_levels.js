// Grey levels to brightness on the screen: a window of grey levels, ``window`` wide around ``level``, from black to white.

/**
 * Name, quantiles of the image that become black and white, and what is seen best.
 *
 * @type {[string, number, number, string][]}
 */
export const PRESETS = [
  ["Full", 0, 1, "all grey levels"],
  ["Contrast", 0.03, 0.97, "3rd to 97th percentile"],
  ["Lung", 0.01, 0.6, "darker part of the image"],
  ["Dense", 0.4, 0.995, "mediastinum and bone"],
]
const EVERY = 7 // pixel is counted; presets need no more

// The grey level below or at which a share of the pixels is.
export function quantile(pixels, levels, share) {
  const histogram = new Uint32Array(levels + 1)
  let total = 0
  for (let i = 0; i < pixels.length; i += EVERY, total++) histogram[Math.min(pixels[i], levels)]++
  let seen = 0
  for (let value = 0; value <= levels; value++) {
    seen += histogram[value]
    if (seen >= share * total) return value
  }
  return levels
}

// [window, level] of each preset for an image whose grey levels are 0 to ``levels``; ``inverse``: small ones are bright.
export function presetWindows(pixels, levels, inverse = false) {
  return PRESETS.map(([, dark, bright]) => {
    const [low, high] = inverse ? [1 - bright, 1 - dark] : [dark, bright]
    const bottom = low === 0 ? 0 : quantile(pixels, levels, low)
    const top = high === 1 ? levels : quantile(pixels, levels, high)
    return [Math.max(top - bottom, 1), (top + bottom) / 2]
  })
}

// The windows a reader chooses from, the file's own first where it has one: {name, about, window, level}, in grey levels.
export function windowsOf(pixels, { levels, grey }) {
  const own = grey?.window ? [{ name: "File", about: "as the file says", window: grey.window[1], level: grey.window[0] }] : []
  const found = presetWindows(pixels, levels, grey?.inverse)
  return [...own, ...PRESETS.map(([name, , , about], at) => ({ name, about, window: found[at][0], level: found[at][1] }))]
}

// A grey level in the file's own units, and a width of a window in them.
/** @param {number} level @param {{first: number, step: number} | null | undefined} grey */
export const inUnits = (level, grey) => (grey ? grey.first + grey.step * level : level)
/** @param {number} width @param {{first: number, step: number} | null | undefined} grey */
export const wideInUnits = (width, grey) => (grey ? Math.abs(grey.step) * width : width)

// Brightness, 0 to 255, of each grey level.
export function brightness(levels, { window, level, inverted }) {
  const table = new Uint8ClampedArray(levels + 1)
  const bottom = level - window / 2
  for (let value = 0; value <= levels; value++) {
    const bright = Math.min(Math.max((255 * (value - bottom)) / window, 0), 255)
    table[value] = inverted ? 255 - bright : bright
  }
  return table
}

// Window and level after a drag: right widens the window, up lowers the level (brighter), as in most reading software.
export function dragged({ window, level }, dx, dy, levels) {
  const step = levels / 600
  return {
    window: Math.min(Math.max(window + dx * step, 1), 2 * levels),
    level: Math.min(Math.max(level + dy * step, -levels), 2 * levels),
  }
}

// Opaque grey pixels (as RGBA in 32 bits) of an image, by the table of `brightness`.
export function develop(pixels, table, out) {
  for (let i = 0; i < out.length; i++) {
    const bright = table[pixels[i]]
    out[i] = 0xff000000 | (bright << 16) | (bright << 8) | bright
  }
}
