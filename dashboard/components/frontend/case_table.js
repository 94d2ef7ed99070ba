// Studies down, reports across. Text goes in as text, never as markup.
// The focus is on a row: j and k (or the arrows) move it, past the last row the page turns; x chooses, Enter opens.

import { make } from "./dom.js"
import { followLinks } from "./links.js"
import { WORDS, sign } from "./marks.js"

const tables = new WeakMap()

function marked(piece) {
  if (!piece.observation) return document.createTextNode(piece.text)
  const words = `${piece.observation}: ${WORDS[piece.outcome ?? piece.state]}`
  const mark = make("mark", { "data-state": piece.state, title: words })
  if (piece.outcome) {
    mark.dataset.outcome = piece.outcome
    mark.append(sign(piece.outcome), "\u2060") // the sign stays on its word's line
  }
  mark.append(piece.text, make("span", { className: "spoken", text: ` (${words})` }))
  return mark
}

function report(title, cell) {
  const box = make("div", { className: "cell", role: "cell" }, make("h3", { text: title }))
  if (cell.counts) {
    const counts = make("span", { className: "counts" })
    for (const [kind, number] of Object.entries(cell.counts)) {
      if (number) counts.append(make("span", { title: `${number} ${kind}`, "aria-label": `${number} ${kind}` }, sign(kind), String(number)))
    }
    box.querySelector("h3").append(counts)
  }
  box.append(make("p", {}, ...cell.pieces.map(marked)))
  if (cell.missed?.length) {
    const list = make("p", { className: "missed", text: "Missed: " })
    for (const name of cell.missed) list.append(make("mark", { "data-outcome": "missed" }, sign("missed"), name), " ")
    box.append(list)
  }
  return box
}

class Table {
  constructor(root) {
    this.root = root
    this.events = new AbortController()
    root.addEventListener("keydown", (event) => this.key(event), { signal: this.events.signal })
    followLinks(root, (query) => this.send("open", query), this.events.signal)
    root.addEventListener("change", (event) => this.choose(event.target), { signal: this.events.signal })
  }

  close() {
    this.events.abort()
  }

  show({ columns, rows, referenced, query, first, last }, send) {
    this.send = send
    this.ends = { [-1]: first, 1: last }
    const ids = rows.map((row) => row.id).join()
    const text = JSON.stringify([columns, rows, referenced, query])
    if (text === this.text) return
    const at = this.root.contains(this.active()) ? this.rows().indexOf(this.active().closest(".row")) : -1
    const turned = ids !== this.ids
    this.text = text
    this.ids = ids
    const head = make("div", { className: "head", role: "row" },
      ...["Study", ...(referenced ? ["Reference"] : []), ...columns].map((title) => make("span", { role: "columnheader", text: title })))
    const table = make("div", { className: "table", role: "table", "aria-label": "Reports of studies" }, head,
      ...rows.map((row) => this.row(row, columns, referenced, query)))
    table.style.setProperty("--reports", columns.length + (referenced ? 1 : 0))
    this.root.replaceChildren(table)
    const focus = turned && this.turned ? (this.turned > 0 ? 0 : rows.length - 1) : at
    if (focus >= 0) this.rows()[Math.min(focus, rows.length - 1)]?.focus()
    this.turned = 0
  }

  row(row, columns, referenced, query) {
    const name = row.here
      ? make("a", { text: row.id, href: `./?study=${encodeURIComponent(row.id)}${query && `&${query}`}`, target: "_self", title: "Open on the Read page" })
      : make("b", { text: row.id })
    const box = make("input", { type: "checkbox", value: row.id })
    box.checked = row.chosen
    const study = make("div", { className: "study", role: "rowheader" })
    if (row.picture) study.append(make("img", { alt: `Radiograph ${row.id}`, src: `data:image/jpeg;base64,${row.picture}` }))
    study.append(make("div", {}, name, make("small", { text: row.about }), make("label", {}, box, " in the figure")))
    return make("div", { className: "row", role: "row", tabindex: 0, "aria-label": `${row.id}: ${row.about}` },
      study, ...(referenced ? [report("Reference", { pieces: row.reference })] : []), ...row.cells.map((cell, place) => report(columns[place], cell)))
  }

  rows() {
    return [...this.root.querySelectorAll(".row")]
  }

  active() {
    return this.root.getRootNode().activeElement
  }

  choose(box) {
    if (box.type === "checkbox") this.send("choose", box.value)
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return
    const step = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[event.key]
    const rows = this.rows()
    const row = event.target.closest(".row")
    if (step) {
      const next = rows[rows.indexOf(row) + step]
      if (next) {
        next.focus({ preventScroll: true })
        next.scrollIntoView({ block: "nearest" })
      } else if (!this.ends[step] && !this.turned) {
        this.turned = step
        this.send("turn", step)
      }
    } else if (event.key === "Enter" && event.target === row) row.querySelector("a")?.click()
    else if (event.key === "x" && row) row.querySelector("input").click()
    else return
    event.preventDefault()
    event.stopPropagation()
  }
}

export default function mount(component) {
  const { data, parentElement, setTriggerValue } = component
  let table = tables.get(parentElement)
  if (!table) {
    table = new Table(parentElement.querySelector(".cases"))
    tables.set(parentElement, table)
  }
  table.show(data, setTriggerValue)
  return () => {
    table.close()
    tables.delete(parentElement)
  }
}
