// A small radiograph beside the pointer while it rests on a point of a map. Each picture is asked for when it is first
// needed, and kept. Plotly's charts stand outside this component and may be drawn anew at any time: their events are
// heard from the moment the pointer comes to them.

const REST = 60 // ms on a point until its picture is asked for
const boxes = new WeakMap()

class Pictures {
  constructor(box) {
    this.box = box
    this.known = new Map()
    this.heard = new WeakSet()
    this.events = new AbortController()
    document.addEventListener("pointermove", (event) => this.moved(event), { signal: this.events.signal, passive: true })
  }

  close() {
    this.events.abort()
    this.leave()
  }

  show(pictures, send) {
    this.send = send
    for (const [id, picture] of Object.entries(pictures)) this.known.set(id, picture)
    if (this.at) this.draw()
  }

  moved(event) {
    const chart = event.target.closest?.(".js-plotly-plot")
    if (!chart?.on) return this.leave()
    this.pointer = { x: event.clientX, y: event.clientY }
    if (this.at) this.place()
    if (this.heard.has(chart)) return
    this.heard.add(chart)
    chart.on("plotly_hover", ({ points }) => this.reach(points[0]?.customdata))
    chart.on("plotly_unhover", () => this.leave())
  }

  reach(id) {
    this.leave()
    if (typeof id !== "string" || this.events.signal.aborted) return
    this.at = id
    if (this.known.has(id)) this.draw()
    else this.timer = setTimeout(() => this.send("ask", id), REST)
  }

  leave() {
    clearTimeout(this.timer)
    this.at = undefined
    this.box.hidden = true
  }

  draw() {
    const picture = this.known.get(this.at)
    if (!picture) return
    this.box.src = `data:image/jpeg;base64,${picture}`
    this.box.alt = `Radiograph ${this.at}`
    this.box.hidden = false
    this.place()
  }

  place() {
    // Below plotly's label; above it at the foot of the window.
    const { x, y } = this.pointer
    const side = 116
    this.box.style.left = `${Math.max(Math.min(x + 12, innerWidth - side), 0)}px`
    this.box.style.top = `${y + 36 + side < innerHeight ? y + 36 : y - 36 - side}px`
  }
}

export default function mount({ data, parentElement, setTriggerValue }) {
  let pictures = boxes.get(parentElement)
  if (!pictures) {
    pictures = new Pictures(parentElement.querySelector("img"))
    boxes.set(parentElement, pictures)
  }
  pictures.show(data.pictures, setTriggerValue)
  return () => {
    pictures.close()
    boxes.delete(parentElement)
  }
}
