// The reference, the table of findings and the cards of generated reports. Text goes in as text, never as markup.
// A finding that is pointed at, or whose row is clicked, is followed through all of them. A word, sentence or finding
// that is clicked (or Enter) is asked about: the server hears of it by the trigger "ask".

import { make } from "./dom.js"
import { SIGNS, WORDS, sign } from "./marks.js"

const KINDS = { word: "the word", sentence: "its sentence", finding: "the marked finding" }
const OFTEN = 250 // ms
const ANSWERED = 4000 // ms, until when the answer stands on the page
const READING = ["wheel", "touchmove", "pointerdown", "keydown"] // the reader goes elsewhere
const roots = new WeakMap()

function marked(piece) {
  const kind = piece.outcome ?? piece.state
  const mark = make("mark", {
    "data-state": piece.state, "data-observation": piece.observation, title: `${piece.observation}: ${WORDS[kind]}`,
  })
  if (piece.outcome) {
    mark.dataset.outcome = piece.outcome
    mark.append(sign(piece.outcome), "\u2060") // the sign stays on its word's line
  }
  return mark
}

// A piece of a generated report: each word can be reached.
function spoken(piece) {
  const box = piece.observation ? marked(piece) : make("span", { className: "words" })
  const kind = WORDS[piece.outcome ?? piece.state]
  const [lead] = piece.words[0]
  piece.words.forEach(([before, text], place) => {
    if (place) box.append(before)
    const word = make("span", { className: "word", text, role: "button", tabindex: -1, "data-word": piece.first + place })
    if (kind) word.setAttribute("aria-label", `${text}, ${piece.observation}: ${kind}`)
    box.append(word)
  })
  return [lead, box]
}

function read(piece) {
  if (!piece.observation) return make("span", { className: "words", text: piece.text })
  const mark = marked(piece)
  mark.append(piece.text)
  return mark
}

// A piece of a text alone whose writer can be asked about findings: each marked one can be reached, as one word.
function findable(piece, place) {
  if (!piece.observation) return read(piece)
  const mark = marked(piece)
  const label = `${piece.text}, ${piece.observation}: ${WORDS[piece.outcome ?? piece.state]}`
  mark.append(make("span", { className: "word", text: piece.text, role: "button", tabindex: -1, "data-word": place, "aria-label": label }))
  return mark
}

function referenceCard(data) {
  const article = make("article", { className: "reference", "aria-label": data.title }, make("header", {}, make("h2", { text: data.title })))
  for (const section of data.sections) {
    const name = make("span", { className: "section", text: section.name })
    article.append(make("p", {}, name, ...section.pieces.map(read)))
  }
  return article
}

function card(data) {
  const header = make("header", {}, make("h2", { text: data.title, title: data.about ?? data.title }))
  if (data.measured) header.append(make("small", { text: data.measured }))
  const article = make("article", { className: "card", "aria-label": data.title, "data-name": data.name }, header)
  if (data.waiting) {
    article.classList.add("waiting")
    article.setAttribute("aria-busy", "true")
    article.append(make("i"), make("i"), make("i"))
    return article
  }
  if (data.error) {
    article.append(make("p", { className: "note", text: `⚠ ${data.error}` }))
    return article
  }
  if (data.counts) {
    const counts = make("span", { className: "counts" })
    for (const kind of ["found", "missed", "invented", "opposite"]) {
      const number = data.counts[kind]
      const words = `${number} ${kind}`
      counts.append(make("span", { className: number ? "" : "none", title: words, "aria-label": words }, sign(kind), String(number)))
    }
    header.append(counts)
  }
  if (data.asked && data.pieces.some(({ observation }) => observation)) {
    const text = make("p", {
      className: "text", role: "group",
      "aria-label": `Report of ${data.title}. Arrow keys choose a finding, Enter asks where it comes from.`,
    }, ...data.pieces.map(findable))
    text.querySelector(".word").tabIndex = 0
    article.append(text)
  } else if (data.pieces.length && !data.sentences) {
    // A text alone: nothing is known of where its words come from.
    article.append(make("p", { className: "text" }, ...data.pieces.map(read)))
  } else if (data.pieces.length) {
    const text = make("p", {
      className: "text", role: "group",
      "aria-label": `Report of ${data.title}. Arrow keys choose a word, Enter asks where it comes from, Shift and Enter asks about its sentence.`,
    }, ...data.pieces.flatMap(spoken))
    text.querySelector(".word").tabIndex = 0
    article.append(text)
  } else {
    article.append(make("p", { text: "(The model wrote nothing.)" }))
  }
  if (data.without) article.append(...without(data, article))
  if (data.missed.length) {
    const list = make("p", { className: "missed", text: "Missed: " })
    for (const name of data.missed) {
      list.append(make("mark", { "data-outcome": "missed", "data-observation": name, title: `${name}: missed` }, sign("missed"), name), " ")
    }
    article.append(list)
  }
  if (data.found) {
    const title = "This model first decides which findings it sees in the whole image, then writes the report with them. "
      + "Where the report calls the image abnormal but leaves out one that is found well enough, a radiologist's sentence for it is added."
    const line = make("p", { className: "note first", title, text: "Found in the image before writing: " })
    data.found.forEach(({ name, written, added, somewhere }, place) => {
      const words = added ? `${name} (sentence added)` : written ? name : `${name} (not written)`
      const asks = { type: "button", text: words, "data-found": name, "aria-label": `${words}: ask where it was found` }
      const comma = place < data.found.length - 1 ? "," : "" // it stays on the line of its name
      line.append(make("span", {}, somewhere ? make("button", asks) : words, comma), " ")
    })
    if (!data.found.length) line.append("nothing")
    article.append(line)
  }
  if (data.contradicted) {
    const title = "The model wrote sentences that contradict each other. What it found in the image before it wrote decides which of them stays; a model that does not decide that first keeps the finding."
    article.append(make("p", { className: "note contradicted", title, text: `Written, and left out because it contradicts the rest: “${data.contradicted}”` }))
  }
  if (data.note) article.append(make("p", { className: "note", text: `⚠ ${data.note}` }))
  return article
}

// How far the log-likelihood of a word moves without a region, in words; from a factor of two on.
const HALF = Math.log(2)
function moved(change) {
  const times = Math.exp(Math.abs(change))
  const factor = times >= 1000 ? "over 1000" : times >= 10 ? times.toFixed(0) : times.toFixed(1)
  return `${factor} times ${change < 0 ? "less" : "more"} likely without the region`
}

// Marks the words that depend on a region, and tells what is written without it.
function without({ without: { changes, difference, reference } }, article) {
  const text = make("p", { className: "again" }, make("span", { className: "section", text: "Written again without the region" }))
  if (difference.every(([kind]) => kind === "same")) text.append("the same report")
  else for (const [kind, run] of difference) text.append(make({ same: "span", removed: "del", added: "ins" }[kind], { text: run }), " ")
  if (!changes) return [text] // of who wrote it only texts are known, no likelihoods
  let marks = 0
  article.querySelectorAll(".word").forEach((word, at) => {
    if (!(Math.abs(changes[at]) >= HALF)) return
    marks += 1
    word.dataset.moved = changes[at] < 0 ? (changes[at] < -Math.log(10) ? "much-less" : "less") : "more"
    word.title = moved(changes[at])
    word.setAttribute("aria-label", `${word.getAttribute("aria-label") ?? word.textContent}, ${moved(changes[at])}`)
  })
  const same = difference.every(([kind]) => kind === "same")
  const words = marks
    ? `${marks} ${marks === 1 ? "word becomes" : "words become"} at least twice less (▾) or more (▴) likely without the region.`
    : same
      ? "No word becomes less than half, or more than twice, as likely without the region."
      : "The words written keep their likelihood, yet another report wins without the region: the model was undecided."
  const parts = [make("p", { className: "note", text: words })]
  if (reference !== null) {
    const most = 7 // e to the 7th is over 1000
    const times = Math.exp(Math.min(Math.abs(reference), most)).toFixed(1)
    const way = `becomes ${times} times ${reference < 0 ? "less" : "more"} likely${Math.abs(reference) > most ? " or more" : ""}`
    parts[0].append(` The reference report ${Math.abs(reference) < HALF ? "stays about as likely" : way}.`)
  }
  return [...parts, text]
}

function overview(data) {
  const kinds = data.compared ? ["found", "missed", "invented", "opposite"] : ["positive", "uncertain", "negative"]
  const legend = make("div", { className: "legend", role: "note", "aria-label": "Legend" })
  for (const kind of kinds) legend.append(make("span", {}, sign(kind), WORDS[kind]))
  legend.append(make("span", { className: "hint", text: "Point at a finding to follow it through all reports; click its row to keep it." }))

  const groups = []
  for (const { group, group_about: about } of data.columns) {
    if (groups.at(-1)?.name === group) groups.at(-1).span++
    else groups.push({ name: group, about: about ?? group, span: 1 })
  }
  const top = make("tr", {}, make("th", { rowspan: 2, scope: "col", text: "Finding" }))
  if (data.compared) top.append(make("th", { rowspan: 2, scope: "col", className: "edge", text: "Ref", title: "Reference report" }))
  const voted = data.rows.some(({ votes }) => votes)
  if (voted) top.append(make("th", { rowspan: 2, scope: "col", className: "edge", text: "Say it", title: "How many reports say it" }))
  const tested = data.rows.some(({ too }) => too)
  const meaning = "In how many held-out studies where about as many models said the finding the reference report said it too"
  if (tested) top.append(make("th", { rowspan: 2, scope: "col", text: "Ref in tests", title: meaning }))
  for (const { name, about, span } of groups) {
    top.append(make("th", { colspan: span, scope: "colgroup", className: "edge", text: name, title: about }))
  }
  const edge = (index) => (data.columns[index - 1]?.group === data.columns[index].group ? "" : "edge")
  const second = make("tr", {}, ...data.columns.map(({ name, about }, index) =>
    make("th", { scope: "col", className: edge(index), text: name, title: about ?? name })))
  const body = make("tbody")
  for (const { observation, reference, cells, votes, too, too_about: told } of data.rows) {
    const row = make("tr", { "data-observation": observation, tabindex: 0 }, make("th", { scope: "row", text: observation }))
    if (data.compared) {
      row.append(make("td", { className: "edge", text: SIGNS[reference] ?? "", "aria-label": WORDS[reference] }))
    }
    if (voted) row.append(make("td", { className: "edge votes", text: votes }))
    if (tested) row.append(make("td", { className: "votes", text: too, title: told, "aria-label": told }))
    cells.forEach((kind, index) => {
      const { group, name } = data.columns[index]
      const words = `${observation}, ${name} + ${group}: ${WORDS[kind] ?? "nothing to compare"}`
      const cell = make("td", { className: `${edge(index)} ${kind ? "" : "quiet"}`, title: words, "aria-label": words })
      cell.append(kind ? sign(kind) : "·")
      row.append(cell)
    })
    body.append(row)
  }
  const box = make("div", { className: "overview" }, legend)
  if (data.rows.length) {
    box.append(make("div", { className: "scroll" }, make("table", {}, make("thead", {}, top, second), body)))
  } else {
    const where = data.compared ? "neither in the reference nor in any report" : "in no report"
    box.append(make("p", { text: `No abnormal finding, ${where}.` }))
  }
  return box
}

class Reports {
  constructor(root) {
    this.root = root
    this.built = new Map() // what was drawn of each part, so that only what changed is drawn anew
    this.grid = make("div", { className: "grid" })
    this.kind = "word"
    this.pinned = null
    /** @type {AbortController | undefined} */
    this.bringing = undefined // words that are asked about into sight
    this.unfolded = false // whether all reports are shown
    this.events = new AbortController()
    const on = (name, call) => root.addEventListener(name, call, { signal: this.events.signal })
    const observation = (event) => event.target.closest?.("[data-observation]")?.dataset.observation ?? null
    on("pointerover", (event) => this.follow(observation(event) ?? this.pinned))
    on("pointerleave", () => this.follow(this.pinned))
    on("focusin", (event) => this.follow(observation(event) ?? this.pinned))
    on("click", (event) => this.click(event))
    on("keydown", (event) => this.key(event))
  }

  close() {
    this.events.abort()
    this.bringing?.abort()
  }

  // The element of a part, drawn anew only if its data changed.
  part(name, data, draw) {
    const text = JSON.stringify(data)
    const before = this.built.get(name)
    if (before?.text === text) return before.element
    const element = draw(data)
    this.built.set(name, { text, element })
    return element
  }

  show({ cards, reference, overview: table, asked, folded }, ask) {
    this.ask = ask
    this.cards = new Map(cards.map((each) => [each.name, each]))
    const parts = []
    if (reference) parts.push(this.part("reference", reference, referenceCard))
    const written = cards.filter((each) => !each.waiting).length
    if (written < cards.length) {
      const words = written ? `Writing reports: ${written} of ${cards.length}` : "Loading the models"
      parts.push(make("div", { className: "progress", role: "status" }, make("progress", { max: cards.length, value: written, "aria-label": words }), words))
    }
    if (table) parts.push(this.part("overview", table, overview))
    if (written) parts.push(this.part("kinds", this.kind, () => this.kinds()))
    if (asked && cards.findIndex(({ name }) => name === asked.pair) > 0) this.unfolded = true
    if (cards.length) parts.push(this.grid)
    if (folded && written === cards.length) parts.push(this.part("fold", [cards.length, this.unfolded], () => this.fold(cards.length)))
    this.grid.classList.toggle("folded", folded && written === cards.length && !this.unfolded)
    putInPlace(this.grid, cards.map((each) => this.part(each.name, { ...each, reliable: undefined }, card)))
    putInPlace(this.root, parts)
    this.dots(cards)
    this.mark(asked)
    this.bringIntoSight(asked, written === cards.length)
    this.follow(this.pinned)
  }

  // The words that are asked about, of a link too, and the answer beside them. Again when all is written, for what is
  // written above them moves them, and while the page draws the answer, unless the reader goes elsewhere meanwhile.
  bringIntoSight(asked, finished) {
    const now = asked ? JSON.stringify([asked, finished]) : ""
    if (now === this.broughtFor) return
    this.broughtFor = now
    this.bringing?.abort()
    if (!asked) return
    const ended = (this.bringing = new AbortController())
    const { signal } = ended
    for (const name of READING) window.addEventListener(name, () => ended.abort(), { signal, capture: true })
    const until = performance.now() + ANSWERED
    const bring = () => {
      if (signal.aborted) return
      document.querySelector(".st-key-answer")?.scrollIntoView({ block: "nearest" })
      this.root.querySelector(".asked")?.scrollIntoView({ block: "nearest" })
      if (performance.now() < until) setTimeout(bring, OFTEN)
      else ended.abort()
    }
    requestAnimationFrame(bring)
  }

  // A dot before each sentence that was measured to be reliable. They come after the reports, which stay as they are.
  dots(cards) {
    for (const { name, reliable = [] } of cards) {
      const words = this.words(name)
      const wanted = new Set(reliable)
      words.forEach((word, at) => {
        const before = word.previousElementSibling
        const dotted = Boolean(before?.classList.contains("reliable"))
        if (dotted && !wanted.has(at)) before?.remove()
        else if (!dotted && wanted.has(at)) {
          word.before(make("span", { className: "reliable", role: "img", "aria-label": "Marked as reliable:", title: "Marked as reliable", text: "●" }))
        }
      })
    }
  }

  fold(count) {
    const text = this.unfolded ? "Show the best report only" : count === 2 ? "Show the other report" : `Show the other ${count - 1} reports`
    return make("button", { type: "button", className: "fold", text, "aria-expanded": String(Boolean(this.unfolded)) })
  }

  kinds() {
    const box = make("div", { className: "kinds", role: "group", "aria-label": "What a click asks about" }, "Click to ask where it comes from:")
    for (const [kind, words] of Object.entries(KINDS)) {
      box.append(make("button", { type: "button", text: words, "data-kind": kind, "aria-pressed": String(kind === this.kind) }))
    }
    return box
  }

  mark(asked) {
    for (const word of this.root.querySelectorAll(".asked")) {
      word.classList.remove("asked")
      word.removeAttribute("aria-pressed")
    }
    for (const article of this.grid.children) article.classList.toggle("open", article.dataset.name === asked?.pair)
    const data = this.cards.get(asked?.pair)
    if (!data?.pieces) return
    if (asked.kind === "found") {
      const found = this.root.querySelector(`article[data-name="${CSS.escape(asked.pair)}"] [data-found="${CSS.escape(asked.which)}"]`)
      found?.classList.add("asked")
      found?.setAttribute("aria-pressed", "true")
      return
    }
    for (const word of this.words(asked.pair)) {
      const at = Number(word.dataset.word)
      const chosen =
        asked.kind === "word" ? at === asked.which
        : asked.kind === "sentence" ? sentenceOf(data, at) === asked.which
        : word.closest("[data-observation]")?.dataset.observation === asked.which
      if (!chosen) continue
      word.classList.add("asked")
      word.setAttribute("aria-pressed", "true")
    }
  }

  words(name) {
    return [...this.root.querySelectorAll(`article[data-name="${CSS.escape(name)}"] .word`)]
  }

  follow(observation) {
    if (observation === this.followed) return
    this.followed = observation
    this.root.classList.toggle("following", Boolean(observation))
    for (const element of this.root.querySelectorAll("[data-observation]")) {
      element.classList.toggle("followed", element.dataset.observation === observation)
    }
  }

  pin(observation) {
    this.pinned = observation === this.pinned ? null : observation
    this.follow(this.pinned)
  }

  click(event) {
    const fold = event.target.closest(".fold")
    if (fold) {
      this.unfolded = !this.unfolded
      this.grid.classList.toggle("folded", !this.unfolded)
      fold.replaceChildren(...this.fold(this.cards.size).childNodes)
      fold.setAttribute("aria-expanded", String(this.unfolded))
      this.built.delete("fold")
      return
    }
    const kind = event.target.closest("[data-kind]")?.dataset.kind
    const found = event.target.closest("[data-found]")
    const word = event.target.closest(".word")
    const row = event.target.closest("[data-observation]")
    if (kind) {
      this.kind = kind
      for (const button of this.root.querySelectorAll("[data-kind]")) {
        button.setAttribute("aria-pressed", String(button.dataset.kind === kind))
      }
    } else if (found) {
      this.asks({ pair: found.closest("article").dataset.name, kind: "found", which: found.dataset.found })
    } else if (word) {
      this.choose(word)
      this.question(word, event.shiftKey ? "sentence" : this.kind)
    } else if (row) this.pin(row.dataset.observation)
  }

  question(word, kind) {
    const pair = word.closest("article").dataset.name
    const at = Number(word.dataset.word)
    const observation = word.closest("[data-observation]")?.dataset.observation
    let which = at
    if (!this.cards.get(pair).sentences) kind = "finding" // of a text alone, nothing else can be asked
    if (kind === "sentence") which = sentenceOf(this.cards.get(pair), at)
    if (kind === "finding") {
      if (observation) which = observation
      else kind = "word" // nothing is marked here
    }
    this.asks({ pair, kind, which })
  }

  asks(asked) {
    this.mark(asked)
    this.ask(asked)
  }

  choose(word) {
    for (const other of word.closest("article").querySelectorAll('.word[tabindex="0"]')) other.tabIndex = -1
    word.tabIndex = 0
    word.focus({ preventScroll: true })
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return
    const word = event.target.closest(".word")
    const enter = event.key === "Enter" || event.key === " "
    if (!word) {
      const row = event.target.closest("tr[data-observation]")
      if (row && enter) this.pin(row.dataset.observation)
      else if (event.key === "Escape") this.pin(this.pinned)
      else return
    } else if (enter) this.question(word, event.shiftKey ? "sentence" : this.kind)
    else {
      const { name } = word.closest("article").dataset
      const words = this.words(name)
      const { sentences } = this.cards.get(name)
      const at = words.indexOf(word)
      const sentence = sentences && sentenceOf(this.cards.get(name), at)
      const target = {
        ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: words.length - 1,
        ArrowUp: at > sentences?.[sentence] ? sentences[sentence] : sentences?.[sentence - 1], ArrowDown: sentences?.[sentence + 1],
      }
      if (!(event.key in target)) return
      if (words[target[event.key]]) this.choose(words[target[event.key]])
    }
    event.preventDefault()
    event.stopPropagation()
  }
}

function sentenceOf(data, at) {
  return data.sentences.findLastIndex((start) => start <= at)
}

// Put children in place, and touch only those that changed: focus and selection stay.
function putInPlace(parent, children) {
  children.forEach((child, index) => {
    if (parent.childNodes[index] !== child) parent.insertBefore(child, parent.childNodes[index] ?? null)
  })
  while (parent.childNodes.length > children.length) parent.lastChild.remove()
}

export default function mount(component) {
  const { data, parentElement, setTriggerValue } = component
  let state = roots.get(parentElement)
  if (!state) {
    state = new Reports(parentElement.querySelector(".reports"))
    roots.set(parentElement, state)
  }
  state.show(data[0], (asked) => setTriggerValue("ask", asked))
  return () => {
    state.close()
    roots.delete(parentElement)
  }
}
