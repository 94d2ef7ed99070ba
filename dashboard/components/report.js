// Report cards and the overview. Text goes in as text, never as markup.
// A finding that is pointed at or clicked is followed through all cards of the page: they hear of it by a window event.

const SIGNS = { found: "✓", missed: "○", invented: "+", opposite: "⇄", positive: "●", uncertain: "?", negative: "–" }
const WORDS = {
  found: "found", missed: "missed", invented: "invented", opposite: "opposite of the reference",
  positive: "present", uncertain: "uncertain", negative: "absent", blank: "not mentioned",
}
const FOLLOW = "cxr-lens-follow"
const roots = new WeakMap()

function make(name, { text, className, ...rest } = {}, ...children) {
  const element = document.createElement(name)
  if (text !== undefined) element.textContent = text
  if (className) element.className = className
  for (const [key, value] of Object.entries(rest)) element.setAttribute(key, value)
  element.append(...children)
  return element
}

function sign(kind) {
  return make("span", { className: "sign", text: SIGNS[kind], "data-outcome": kind, "aria-hidden": "true" })
}

function follow(observation, pinned) {
  window.dispatchEvent(new CustomEvent(FOLLOW, { detail: { observation, pinned } }))
}

function followable(element, observation) {
  element.dataset.observation = observation
  element.tabIndex = 0
  element.onmouseenter = () => follow(observation, false)
  element.onmouseleave = () => follow(null, false)
  element.onclick = () => follow(observation, true)
  element.onkeydown = (event) => {
    if (event.key === "Enter") follow(observation, true)
    if (event.key === "Escape") follow(null, true)
  }
  return element
}

function marked(piece) {
  if (!piece.observation) return make("span", { className: "words", text: piece.text })
  const kind = piece.outcome ?? piece.state
  const mark = make("mark", {
    "data-state": piece.state,
    title: `${piece.observation}: ${WORDS[kind]}`,
    "aria-label": `${piece.text}, ${piece.observation}: ${WORDS[kind]}`,
  })
  if (piece.outcome) {
    mark.dataset.outcome = piece.outcome
    mark.append(sign(piece.outcome), "\u2060") // the sign stays on its word's line
  }
  mark.append(piece.text)
  return followable(mark, piece.observation)
}

function card(data) {
  const header = make("header", {}, make("h4", { text: data.title }))
  if (data.heading) header.append(make("small", { text: data.heading }))
  if (data.counts) {
    const counts = make("span", { className: "counts" })
    for (const kind of ["found", "missed", "invented", "opposite"]) {
      const number = data.counts[kind]
      counts.append(
        make("span", {
          className: number ? "" : "none", title: `${number} ${kind}`, "aria-label": `${number} ${kind}`,
        }, sign(kind), String(number)),
      )
    }
    header.append(counts)
  }
  const article = make("article", { className: data.kind, "aria-label": data.title }, header)
  for (const section of data.sections) {
    const paragraph = make("p")
    if (section.name) paragraph.append(make("span", { className: "section", text: section.name }))
    paragraph.append(...section.pieces.map(marked))
    article.append(paragraph)
  }
  if (data.missed.length) {
    const list = make("p", { className: "missed", text: "Missed: " })
    for (const name of data.missed) {
      const mark = make("mark", { "data-outcome": "missed", "aria-label": `${name}: missed` }, sign("missed"), name)
      list.append(followable(mark, name), " ")
    }
    article.append(list)
  }
  if (data.note) article.append(make("p", { className: "note", text: `⚠ ${data.note}` }))
  return [article]
}

function overview(data) {
  const kinds = data.compared ? ["found", "missed", "invented", "opposite"] : ["positive", "uncertain", "negative"]
  const legend = make("div", { className: "legend", role: "note", "aria-label": "Legend" })
  for (const kind of kinds) legend.append(make("span", {}, sign(kind), WORDS[kind]))
  legend.append(make("span", { className: "hint", text: "Point at a finding, or click to keep it, to follow it through all reports." }))

  const groups = []
  for (const { group } of data.columns) {
    if (groups.at(-1)?.name === group) groups.at(-1).span++
    else groups.push({ name: group, span: 1 })
  }
  const top = make("tr", {}, make("th", { rowspan: 2, scope: "col", "aria-label": "Finding" }))
  if (data.compared) top.append(make("th", { rowspan: 2, scope: "col", className: "edge", text: "Ref", title: "Reference report" }))
  for (const { name, span } of groups) {
    top.append(make("th", { colspan: span, scope: "colgroup", className: "edge", text: name }))
  }
  const edge = (index) => (data.columns[index - 1]?.group === data.columns[index].group ? "" : "edge")
  const second = make("tr", {}, ...data.columns.map(({ name }, index) =>
    make("th", { scope: "col", className: edge(index), text: name })))
  const body = make("tbody")
  for (const { observation, reference, cells } of data.rows) {
    const row = make("tr", {}, make("th", { scope: "row", text: observation }))
    if (data.compared) {
      row.append(make("td", { className: "edge", text: SIGNS[reference] ?? "", "aria-label": WORDS[reference] }))
    }
    cells.forEach((kind, index) => {
      const { group, name } = data.columns[index]
      const words = `${observation}, ${name} + ${group}: ${WORDS[kind] ?? "nothing to compare"}`
      const cell = make("td", { className: `${edge(index)} ${kind ? "" : "quiet"}`, title: words, "aria-label": words })
      cell.append(kind ? sign(kind) : "·")
      row.append(cell)
    })
    body.append(followable(row, observation))
  }
  const parts = [legend]
  if (data.rows.length) {
    parts.push(make("div", { className: "scroll" }, make("table", {}, make("thead", {}, top, second), body)))
  } else {
    const where = data.compared ? "neither in the reference nor in any report" : "in no report"
    parts.push(make("p", { text: `No abnormal finding, ${where}.` }))
  }
  return parts
}

function show(root, observation) {
  root.classList.toggle("following", Boolean(observation))
  for (const element of root.querySelectorAll("[data-observation]")) {
    element.classList.toggle("followed", element.dataset.observation === observation)
  }
}

export default function (component) {
  const { data, parentElement } = component
  const root = parentElement.querySelector(".report")
  root.replaceChildren(...(data.kind === "overview" ? overview(data) : card(data)))
  let state = roots.get(parentElement)
  if (!state) {
    state = { pinned: null }
    state.hear = ({ detail }) => {
      if (detail.pinned) state.pinned = detail.observation === state.pinned ? null : detail.observation
      show(root, detail.observation && !detail.pinned ? detail.observation : state.pinned)
    }
    window.addEventListener(FOLLOW, state.hear)
    roots.set(parentElement, state)
  }
  show(root, state.pinned)
  return () => {
    window.removeEventListener(FOLLOW, state.hear)
    roots.delete(parentElement)
  }
}
