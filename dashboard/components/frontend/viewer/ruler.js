// The ruler: [x, y, x, y] of its ends, in pixels of the image.

// Its length in words: millimetres only where the study tells how far its pixels are apart, else pixels of the original.
/** @param {number[]} ruler @param {{spacing: number[] | null, shrunk: number[]}} header */
export function distance([x, y, endX, endY], { spacing, shrunk }) {
  const [down, across] = spacing ?? shrunk
  const length = Math.hypot((endX - x) * across, (endY - y) * down)
  return spacing ? `${length.toFixed(1)} mm` : `${length.toFixed(0)} pixels`
}

// What the tool measures, for its button.
export function aboutRuler(spacing) {
  return spacing
    ? "Drag measures in millimetres; they are on the detector, where the chest is about 5 % larger, unless the image was calibrated"
    : "Drag measures in pixels: how large one is, is not known"
}

// By keyboard: arrows move a cross; once ``measuring``, they move the end alone.
export function moved(ruler, measuring, [across, down], step) {
  const end = [ruler[2] + across * step, ruler[3] + down * step]
  return measuring ? [ruler[0], ruler[1], ...end] : [...end, ...end]
}

// Draw it with its length; ``ends`` are in pixels of the canvas, ``ratio`` device pixels make one of the page.
export function drawRuler(context, [x, y, endX, endY], words, ratio) {
  const arm = 7 * ratio
  for (const { colour, width } of [{ colour: "#000", width: 4 }, { colour: "#f0e442", width: 1.5 }]) {
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
  if (!words) return
  context.font = `${13 * ratio}px sans-serif`
  const across = context.measureText(words).width
  const textX = Math.min(Math.max((x + endX) / 2 + arm, 4), context.canvas.width - across - 4)
  const textY = Math.min(Math.max((y + endY) / 2 - arm, 16 * ratio), context.canvas.height - 6)
  context.fillStyle = "rgb(0 0 0 / 70%)"
  context.fillRect(textX - 4, textY - 14 * ratio, across + 8, 19 * ratio)
  context.fillStyle = "#f0e442"
  context.fillText(words, textX, textY)
}
