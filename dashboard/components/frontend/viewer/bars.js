// Buttons, sliders and legends around the radiograph.
import { make, toggle } from "../dom.js"
import { MASK_COLOURS, SHARE, SIGNED, tint } from "./colours.js"

export function buildPresets(viewer) {
  const choice = viewer.root.querySelector(".presets")
  choice.replaceChildren(
    ...viewer.windows.map(({ name, about }, index) => make("option", { value: String(index), text: name, title: about })),
    make("option", { value: "", text: "Own window", hidden: true }), // after a drag
  )
  choice.onchange = () => viewer.preset(Number(choice.value))
}

function opacity(viewer, name) {
  const slider = make("input", { type: "range", min: 0, max: 100, value: viewer.opacity * 100, "aria-label": name })
  slider.oninput = () => {
    viewer.opacity = slider.value / 100
    viewer.draw()
  }
  return make("label", {}, "Opacity", slider)
}

// The colour scale of the heat maps; ``scale`` is the strongest value, in multiples of the average.
function colourScale(signed, scale) {
  const bar = make("canvas", { width: 128, height: 1 })
  const context = bar.getContext("2d")
  for (let x = 0; x < 128; x++) {
    context.fillStyle = `rgb(${tint(x / 127, signed ? SIGNED : SHARE).map(Math.round).join(" ")})`
    context.fillRect(x, 0, 1, 1)
  }
  const [low, high] = signed ? [`against −${scale}×`, `for +${scale}×`] : ["0", `${scale}×`]
  const name = `Colour scale from ${low} to ${high} the map's average strength`
  return make("span", { className: "scale", role: "img", "aria-label": name }, low, bar, `${high} average`)
}

export function buildHeat(viewer, scale) {
  const { root, heatBar, maps, region } = viewer
  root.dataset.maps = maps.length
  root.dataset.region = region ? region.map((at) => at.toFixed(3)).join(",") : ""
  heatBar.hidden = !maps.length
  if (!maps.length) return heatBar.replaceChildren()
  const flip = (name) => () => {
    viewer[name] = !viewer[name]
    viewer.draw()
  }
  const shown = toggle("Heat map", () => viewer.heatShown, flip("heatShown"))
  root.dataset.filled = maps.filter((map) => map.filled).length
  if (!maps.some((map) => map.filled)) return heatBar.replaceChildren(shown) // outlines have no colours
  heatBar.replaceChildren(
    shown,
    toggle("Contour", () => viewer.contoured, flip("contoured")),
    opacity(viewer, "Heat map opacity"),
    colourScale(maps.some((map) => map.signed), scale),
  )
}

export function buildOverlays(viewer) {
  const { overlays } = viewer.header
  const groups = [...new Set(overlays.map((overlay) => overlay.group))]
  viewer.shown = new Set([...viewer.shown].filter((group) => groups.includes(group)))
  viewer.overlayBar.hidden = groups.length === 0
  const parts = groups.map((group) => {
    const button = toggle(group, () => viewer.shown.has(group), () => viewer.toggle(group))
    button.dataset.overlay = group
    return button
  })
  if (groups.length) parts.push(opacity(viewer, "Overlay opacity"))
  overlays.forEach((overlay, index) => {
    if (overlay.kind !== "mask") return
    const swatch = make("i", { style: `color: ${MASK_COLOURS[index % MASK_COLOURS.length]}` })
    parts.push(make("span", { className: "legend", "data-group": overlay.group }, swatch, overlay.label))
  })
  viewer.overlayBar.replaceChildren(...parts)
  showLegend(viewer)
}

export function showLegend({ overlayBar, shown }) {
  for (const label of overlayBar.querySelectorAll("label")) label.style.display = shown.size ? "" : "none"
  for (const item of overlayBar.querySelectorAll(".legend")) {
    item.style.display = shown.has(item.dataset.group) ? "" : "none"
  }
}
