// Mouse, touch and keys of the viewer.
const TOOLS = { w: "window", m: "pan", z: "zoom", r: "ruler", a: "angle", c: "ratio", b: "region" }
const ACTS = { "+": "in", "=": "in", "-": "out", 0: "reset", " ": "reset", i: "invert", f: "full", h: "mirror", t: "turn" }
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }

// What a key means, whatever its case: ``viewer`` does it. Keys that mean nothing here are left to the page.
export function pressed(viewer, event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return
  if (!use(viewer, event)) return
  event.preventDefault()
  event.stopPropagation()
}

function use(viewer, event) {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key
  const way = ARROWS[key]
  if (viewer.tool === "region" && viewer.regionKey(key, way, event.shiftKey)) return true
  if (viewer.tool === "ruler" && (way || key === "Enter")) viewer.measure(way, event.shiftKey ? 20 : 2)
  else if (way && event.shiftKey) viewer.windowBy(way[0] * 12, way[1] * 12)
  else if (way) viewer.panBy(-way[0] * 40, -way[1] * 40)
  else if (ACTS[key]) viewer.act(ACTS[key])
  else if (/^[1-9]$/.test(key) && key <= viewer.windows.length) viewer.preset(Number(key) - 1)
  else if (TOOLS[key] && (key !== "b" || viewer.header.regions)) viewer.use(TOOLS[key])
  else return false
  return true
}

export function listen(viewer, signal) {
  const { canvas, root } = viewer
  const touches = new Map() // pointer -> where it was
  const on = (target, name, call, more = {}) => target.addEventListener(name, call, { signal, ...more })

  on(canvas, "wheel", (event) => {
    // Else the page scrolls: who reads a report beside the image has the pointer anywhere.
    if (viewer.tool !== "zoom" && !event.ctrlKey && !event.metaKey && root.getRootNode().fullscreenElement !== root) return
    event.preventDefault()
    viewer.zoomBy(Math.exp(-event.deltaY * 0.0015), viewer.at(event))
  }, { passive: false })
  on(canvas, "contextmenu", (event) => event.preventDefault())
  on(canvas, "dblclick", () => viewer.reset())
  on(canvas, "pointerdown", (event) => {
    if (event.pointerType === "touch" && viewer.penDown) return // the hand that holds the pencil
    canvas.setPointerCapture(event.pointerId)
    canvas.focus({ preventScroll: true })
    if (viewer.tool === "ruler" && event.button === 0 && !event.shiftKey) viewer.startRuler(event)
    if (viewer.measuresTwo && event.button === 0 && !event.shiftKey) viewer.startLine(event)
    touches.set(event.pointerId, [event.clientX, event.clientY])
    // A pencil draws regions whatever the tool is; fingers do what the tool does.
    const pencil = event.pointerType === "pen" && viewer.header?.regions && !viewer.measures
    if (pencil) touches.clear() // a finger that was there
    if (pencil) touches.set(event.pointerId, [event.clientX, event.clientY])
    viewer.penDown = Boolean(pencil)
    if ((viewer.tool === "region" && touches.size === 1) || pencil) viewer.startRegion(event)
  })
  on(canvas, "pointermove", (event) => {
    viewer.point(event)
    const before = touches.get(event.pointerId)
    if (!before) return
    const now = [event.clientX, event.clientY]
    const ratio = window.devicePixelRatio || 1
    const [dx, dy] = [now[0] - before[0], now[1] - before[1]]
    if (touches.size === 2) {
      viewer.dropRegion()
      const other = [...touches].find(([id]) => id !== event.pointerId)[1]
      const apart = (p) => Math.hypot(p[0] - other[0], p[1] - other[1])
      const middle = { clientX: (now[0] + other[0]) / 2, clientY: (now[1] + other[1]) / 2 }
      viewer.panBy((dx / 2) * ratio, (dy / 2) * ratio)
      viewer.zoomBy(apart(now) / Math.max(apart(before), 1), viewer.at(middle))
    } else if (viewer.corner) viewer.stretchRegion(event)
    else if (viewer.tool === "pan" || event.shiftKey || event.buttons > 1) viewer.panBy(dx * ratio, dy * ratio)
    else if (viewer.tool === "ruler") viewer.stretchRuler(event)
    else if (viewer.measuresTwo) viewer.stretchLine(event)
    else if (viewer.tool === "zoom") viewer.zoomBy(Math.exp(-dy * 0.006))
    else viewer.windowBy(dx, dy)
    touches.set(event.pointerId, now)
  })
  for (const name of ["pointerup", "pointercancel"]) {
    on(canvas, name, (event) => {
      if (!touches.delete(event.pointerId)) return
      viewer.penDown = false
      if (viewer.corner && name === "pointerup") viewer.askRegion()
      else if (viewer.corner) {
        viewer.dropRegion()
        viewer.draw()
      }
    })
  }
  on(canvas, "pointerleave", () => (viewer.pointer.textContent = ""))
  on(canvas, "keydown", (event) => pressed(viewer, event))
  on(window, "cxr-lens-heat", ({ detail }) => viewer.hear(detail))
  on(root, "click", (event) => {
    const button = event.target.closest("button")
    if (button?.dataset.tool) viewer.use(button.dataset.tool)
    else if (button?.dataset.do) viewer.act(button.dataset.do)
  })
}
