
// The reading page of a review session. Every change goes into an outbox that is kept in the browser's storage; the
// first of it is sent until the server says that it is stored, then the next. What is shown is what the server knows
// with the outbox on top. Text goes in as text, never as markup.

const IDLE_SECONDS = 60 // without a key or a move the clock of active time stands still
const TELL_TIME_EVERY = 20 // seconds
const AGAIN = [2, 4, 8, 15] // seconds between tries to save
const LATE = 4 // seconds without an answer until it is said
const REFUSED_FOR = 5 // seconds until a page that was refused asks again of itself
const SILENT = 5 // requests without an answer until the page is loaded anew, if the server is there
const SIGNS = { pending: "not read", done: "done", skipped: "skipped" }
const pages = new WeakMap()

const KEYS = {
  always: [
    ["N", "finish the case, go to the next"], ["P", "previous case"], ["G", "first case not read yet"], ["U", "undo"],
    ["F", "flag the case"], ["C", "comment"], ["X", "skip with a reason, or take that back"], ["V", "keys to the image, Esc back"],
    ["I", "instructions"], ["?", "these keys"],
  ],
  image: [
    ["V", "first, to give the keys to the image"], ["W M R", "window, pan, ruler"], ["← ↑ ↓ →", "pan; with Shift: window and level"],
    ["1 – 4", "presets"], ["+ − 0", "zoom in, out, reset"], ["I", "invert"], ["R, arrows, Enter", "ruler: move, start, draw, end"],
  ],
  error: [
    ["↑ ↓", "sentence before, after; above the first: the whole report"], ["← →", "word before, after; with Shift: several words"],
    ["1 – 6", "mark an error of that kind there"], ["M", "choose a mark (again: the next)"], ["S", "significant or not, of the chosen mark"],
    ["Delete", "remove the chosen mark"],
  ],
  preference: [["1", "the first report"], ["2", "the second report"], ["3", "no difference"]],
  helpfulness: [["↑ ↓", "sentence before, after"], ["1", "does not support"], ["2", "partly supports"], ["3", "supports"], ["H", "hide or show what is highlighted"]],
  label: [["↑ ↓", "observation before, after"], ["1", "cannot be judged"], ["2", "absent"], ["3", "uncertain"], ["4", "present"]],
}

function fresh() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("")
}

function clock(seconds) {
  const whole = Math.max(0, Math.round(seconds))
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`
}

// ------------------------------------------------------------------------------------------------------------- outbox

class Outbox {
  // Of one tab. What a closed tab left behind is taken over by the next tab of the same reader and session.
  constructor(session, reader) {
    this.prefix = `cxr-lens-outbox/${session}/${reader}/`
    this.own = this.prefix + fresh()
    this.changes = []
    this.adopt()
  }

  adopt() {
    for (const name of Object.keys(localStorage).filter((each) => each.startsWith(this.prefix) && each !== this.own)) {
      const left = JSON.parse(localStorage.getItem(name))
      if (Date.now() - left.at < 6000) continue // that tab is alive
      this.changes.push(...left.changes)
      localStorage.removeItem(name)
    }
    this.keep()
  }

  // Called each second while something waits, which says that this tab is alive; ``at`` 0 says that it is not.
  keep(at = Date.now()) {
    try {
      if (this.changes.length) localStorage.setItem(this.own, JSON.stringify({ at, changes: this.changes }))
      else localStorage.removeItem(this.own)
    } catch {
      // Storage is full or forbidden: the change is still in memory and is sent all the same.
    }
  }
}

// --------------------------------------------------------------------------------------------------------------- page

class Reading {
  constructor(root) {
    this.root = root
    this.viewer = new Viewer(root.querySelector(".viewer"))
    this.screens = new Map()
    this.slots = new Map() // key of the change that made a mark -> its slot
    this.at = null
    this.count = 0
    this.tab = fresh().slice(0, 8)
    this.seen = new Set()
    this.chosen = { report: 0, sentence: 0, words: null, row: 0, mark: null }
    this.heat = true
    this.active = 0
    this.touched = performance.now()
    this.lastTick = performance.now()
    this.tries = 0
    this.silent = 0
    this.events = new AbortController()
    this.listen()
    this.timer = setInterval(() => this.tick(), 1000)
  }

  $(selector) {
    return this.root.querySelector(selector)
  }

  close() {
    this.events.abort()
    this.viewer.close()
    clearInterval(this.timer)
    clearTimeout(this.retry)
  }

  // ------------------------------------------------------------------------------------------------- server's answers

  receive(data, setStateValue) {
    this.set = setStateValue
    if (data.tick === this.lastAnswer && this.at) return
    this.lastAnswer = data.tick
    if (data.session && (!this.data || this.data.session !== data.session || this.data.reader !== data.reader)) {
      this.outbox = new Outbox(data.session, data.reader)
      this.at = null
      this.screens.clear()
    }
    const first = !this.data
    if (data.session) this.data = data
    this.plates = { ...this.plates, ...data.plates }
    for (const [id, view] of Object.entries(data.screens ?? {})) this.screens.set(id, view)
    if (data.tick === this.sent) { // else what was sent is still without an answer, as after the server began anew
      this.sent = null
      clearTimeout(this.late)
      this.silent = 0
    }
    if (data.ack) this.acknowledge(data.ack)
    if (data.problem) {
      this.say(data.problem)
      this.asked = performance.now() + REFUSED_FOR * 1000 // what the reader does is sent at once all the same
    }
    if (!this.at && data.at) {
      const read = data.places.filter(([, state]) => state !== "pending").length
      if (first) this.over(read === data.places.length ? "end" : read ? null : "instructions")
      const before = sessionStorage.getItem(`${this.outbox.prefix}at`) // where this tab was when it loaded itself anew
      sessionStorage.removeItem(`${this.outbox.prefix}at`)
      this.go(data.places.some(([id]) => id === before) ? before : data.at)
    }
    this.draw()
    this.send()
  }

  // A server that was started anew knows nothing of this page, and answers no request of it: load it again.
  async recover() {
    if (this.typing) return
    const health = await fetch(new URL("_stcore/health", document.baseURI), { cache: "no-store" }).catch(() => null)
    if (!health?.ok || !this.silent) return
    sessionStorage.setItem(`${this.outbox.prefix}at`, this.at)
    location.reload()
  }

  acknowledge(ack) {
    const change = this.outbox.changes[0]
    if (!change || change.key !== ack.key) return
    if (ack.status === "again") {
      this.unsaved = `${ack.message} Your change is kept in this browser and is sent again by itself.`
      const wait = AGAIN[Math.min(this.tries++, AGAIN.length - 1)]
      this.retry = setTimeout(() => this.send(true), wait * 1000)
      this.waiting = true
      return
    }
    this.tries = 0
    this.waiting = false
    this.unsaved = ""
    if (ack.slot) this.slots.set(ack.key, ack.slot)
    this.outbox.changes.shift()
    this.outbox.keep()
    if (ack.status === "saved") {
      this.savedAt = new Date()
    } else if (change.do === "open") {
      this.seen.delete(change.screen)
      if (change.screen === this.at && this.seen.has(this.from)) this.go(this.from)
      if (this.data.open) this.over("time", ack.message)
    } else if (ack.status === "conflict") {
      this.conflict = change
      this.say(`${ack.message} What you see is what is there now.`, change.do === "mark" || change.do === "annotate" ? "Use mine instead (Y)" : "")
    } else if (change.do !== "time") {
      const typed = change.fields?.comment || change.fields?.skip_reason // nobody should have to type it again
      this.say(`Not saved: ${ack.message}${typed ? ` You had typed: “${typed}”` : ""}`)
      if (change.fields?.state && ack.screen) this.go(ack.screen)
    }
  }

  // What is not settled by the server's knowledge of the moment is filled in when its turn comes, and then stays.
  settle(change) {
    if (change.settled) return true
    const view = this.screens.get(change.screen)
    if (change.do === "annotate") {
      if (!view) return false
      change.version = view.version
    } else if (change.do === "mark" || change.do === "unmark") {
      if (!view) return false
      const slot = change.slot || this.slots.get(change.of) || ""
      const found = view.marks.find((mark) => mark.slot === slot)
      change.slot = found ? slot : ""
      change.version = found && change.version !== undefined && !change.of ? change.version : found?.version ?? 0
      if (change.do === "unmark" && !found) return null
    }
    change.settled = true
    return true
  }

  change(fields) {
    if (fields.fields?.state) this.tellTime() // before the case is finished or skipped, so that "saved" means its time too
    const change = { key: fresh(), screen: this.at, ...fields }
    this.outbox.changes.push(change)
    this.outbox.keep()
    this.draw()
    this.send()
    return change
  }

  send(again = false) {
    if (!this.set || !this.outbox || this.sent || (this.waiting && !again)) return
    this.waiting = false
    const want = this.wanted()
    const lack = [this.at, ...want.plates].filter((id) => id && !this.plate(id) && !this.isTrouble(id))
    let change = this.outbox.changes[0] ?? null
    let wantScreens = want.screens
    if (change) {
      const settled = this.settle(change)
      if (settled === null) {
        this.outbox.changes.shift()
        this.outbox.keep()
        return this.send()
      }
      if (settled === false) {
        wantScreens = [change.screen, ...wantScreens]
        change = null
      }
      this.outbox.keep()
    }
    if (!change && !wantScreens.length && !lack.length && !this.look) return
    if (!change && !wantScreens.length && !this.look && performance.now() - (this.asked ?? 0) < 350) {
      clearTimeout(this.poll)
      this.poll = setTimeout(() => this.send(), 360)
      return
    }
    this.look = false
    this.asked = performance.now()
    this.sent = `${this.tab}-${++this.count}`
    this.set("request", { tick: this.sent, at: this.at, want: wantScreens, plates: lack.slice(0, 3), change })
    clearTimeout(this.late)
    this.late = setTimeout(() => {
      if (this.outbox.changes.length) this.unsaved = "The server does not answer. Your changes are kept in this browser and are sent as soon as it does."
      this.sent = null
      this.drawTop()
      this.send(true)
      if (++this.silent >= SILENT) this.recover()
    }, LATE * 1000 * (1 + this.tries))
  }

  wanted() {
    const ids = this.data.places.map(([id]) => id)
    const place = ids.indexOf(this.at)
    const near = [ids[place + 1], ids[place + 2], ids[place - 1]].filter(Boolean)
    return { screens: near.filter((id) => !this.screens.has(id)), plates: near }
  }

  plate(id) {
    return window.cxrLensPlates?.get(id)
  }

  isTrouble(id) {
    const state = this.plates?.[id]
    return state && state !== "ready" && state !== "waiting"
  }

  // --------------------------------------------------------------------------------------------------- what is shown

  view(id = this.at) {
    const stored = this.screens.get(id)
    if (!stored) return null
    const view = { ...stored, marks: stored.marks.map((mark) => ({ ...mark, id: mark.slot })) }
    for (const change of this.outbox.changes) {
      if (change.screen !== id) continue
      const slot = change.slot || this.slots.get(change.of) || change.of
      const found = view.marks.findIndex((mark) => mark.id === slot)
      if (change.do === "mark") {
        const mark = { ...change.mark, id: found < 0 ? change.key : slot, slot: found < 0 ? "" : view.marks[found].slot }
        if (found < 0) view.marks.push({ ...mark, local: change.key })
        else view.marks[found] = { ...view.marks[found], ...mark }
      } else if (change.do === "unmark" && found >= 0) {
        view.marks.splice(found, 1)
      } else if (change.do === "annotate") {
        Object.assign(view, change.fields)
      }
    }
    // In the order of the text, so that a mark keeps its number while it is saved; those of a whole report come last.
    const order = (mark) => (mark.value.span ?? [1e9])[0]
    view.marks.sort((a, b) => a.report.localeCompare(b.report) || order(a) - order(b))
    return view
  }

  get kind() {
    return { "report-quality": "error", preference: "preference", "explanation-helpfulness": "helpfulness", "observation-labels": "label" }[this.data.rubric]
  }

  stateOf([id, state, flagged]) {
    const view = this.view(id)
    return view ? [view.state, view.flagged] : [state, flagged]
  }

  go(id) {
    if (id === this.at) return
    this.tellTime()
    this.lastTick = performance.now()
    this.from = this.at
    this.at = id
    this.typing = null
    this.chosen = this.start(id)
    if (this.data.open && !this.seen.has(id)) {
      this.seen.add(id)
      this.outbox.changes.push({ key: fresh(), screen: id, do: "open" })
      this.outbox.keep()
    }
    this.draw()
    this.root.focus({ preventScroll: true })
    this.send()
  }

  // The first sentence or observation; of a third reader the first that is disputed.
  start(id) {
    const chosen = { report: 0, sentence: 0, words: null, row: 0, mark: null }
    const view = this.view(id)
    const asked = view?.disputed[0]
    if (asked && this.kind === "label") chosen.row = this.data.choices.observations.indexOf(asked.question)
    if (asked && this.kind === "helpfulness") {
      chosen.report = view.reports.findIndex(({ name }) => name === asked.report)
      chosen.sentence = view.reports[chosen.report].sentences.findIndex((span) => span.join("-") === asked.question)
    }
    return chosen
  }

  step(by) {
    const ids = this.data.places.map(([id]) => id)
    const next = ids[ids.indexOf(this.at) + by]
    if (next) this.go(next)
    else if (by > 0) this.over("end")
  }

  missing(view) {
    const disputed = view.disputed.length ? view.disputed.map(({ question }) => question) : null // of a third reader these only
    if (this.kind === "preference" && !view.marks.length) return "which report you prefer"
    if (this.kind === "label") {
      const left = (disputed ?? this.data.choices.observations).filter((name) => !view.marks.some((mark) => mark.value.observation === name))
      return left.length > 4 ? `${left.length} observations` : left.join(", ")
    }
    if (this.kind === "helpfulness" && disputed) {
      const left = view.disputed.filter(({ report, question }) => !view.marks.some((mark) => mark.report === report && mark.value.span.join("-") === question))
      return left.map(({ words }) => words).join(", ")
    }
    if (this.kind === "helpfulness") {
      return view.reports.filter(({ name }) => !view.marks.some((mark) => mark.report === name)).map(({ name }) => `report ${name}`).join(", ")
    }
    return ""
  }

  next() {
    const view = this.view()
    if (!view) return
    if (this.data.open && view.state === "pending") {
      const missing = this.missing(view)
      if (missing && this.warned !== this.at) {
        this.warned = this.at
        this.say(`Not answered yet: ${missing}. Answer, skip with a reason (X), or press N again to leave the case open.`)
        return
      }
      if (!missing) this.change({ do: "annotate", fields: { state: "done" } })
    }
    this.say("")
    this.step(1)
  }

  // --------------------------------------------------------------------------------------------------------- drawing

  draw() {
    if (!this.data || !this.at) return
    this.undrawn = this.pressed // what is being clicked must stay until it is let go
    if (this.pressed) return
    this.drawTop()
    const view = this.view()
    this.root.dataset.screen = this.at
    this.root.dataset.position = view?.position ?? ""
    this.drawFilm(view)
    if (!view) {
      this.$(".body").replaceChildren(make("p", { text: "Loading …" }))
      return
    }
    this.$(".question").textContent = this.data.question
    const about = Object.entries(view.context).map(([name, value]) => `${name.replaceAll("_", " ")}: ${value}`)
    this.$(".context").textContent = about.join(" · ")
    const disputed = this.$(".disputed")
    disputed.hidden = !view.disputed.length
    disputed.replaceChildren(
      make("strong", { text: "Readers answered differently. Please settle:" }),
      make("ul", {}, ...view.disputed.map(({ report, words, answers }) =>
        make("li", { text: `${report ? `Report ${report}: ` : ""}${words}: ${answers.join(" or ")}` }))),
    )
    const body = { error: () => this.reports(view), preference: () => this.reports(view), helpfulness: () => this.reports(view), label: () => this.observations(view) }
    this.$(".body").replaceChildren(...body[this.kind]())
    this.drawPalette(view)
    this.drawMarks(view)
    const comment = this.$(".comment")
    comment.hidden = !view.comment || this.typing === "comment"
    comment.textContent = `Comment: ${view.comment}`
    const flag = this.$('[data-go="flag"]')
    flag.setAttribute("aria-pressed", String(view.flagged))
    flag.firstChild.textContent = view.flagged ? "Flagged " : "Flag "
    const skip = this.$('[data-go="skip"]')
    skip.setAttribute("aria-pressed", String(view.state === "skipped"))
    skip.firstChild.textContent = view.state === "skipped" ? "Skipped " : "Skip "
    this.$('[data-go="next"]').firstChild.textContent = this.data.open && view.state === "pending" ? "Finish, next " : "Next "
    for (const name of ["undo", "flag", "comment", "skip"]) this.$(`[data-go="${name}"]`).disabled = !this.data.open
    this.drawTyping()
    this.root.querySelector(".body .here")?.scrollIntoView({ block: "nearest" })
  }

  drawTop() {
    if (!this.data || !this.at) return
    const states = this.data.places.map((place) => this.stateOf(place))
    const ids = this.data.places.map(([id]) => id)
    const place = ids.indexOf(this.at)
    const read = states.filter(([state]) => state !== "pending").length
    this.$(".title").textContent = this.data.title
    this.$(".case").textContent = `Case ${place + 1} of ${ids.length} · ${read} read`
    const seconds = this.data.seconds + this.active
    const parts = []
    if (!this.data.open) parts.push("closed: nothing can be changed")
    else if (read) {
      parts.push(`${Math.round(seconds / read)} s a case`)
      if (read < ids.length) parts.push(`about ${Math.max(1, Math.round(((seconds / read) * (ids.length - read)) / 60))} min to go`)
    }
    if (this.data.open && this.data.seconds_left !== null) parts.push(`${clock(this.data.seconds_left - this.active)} of your time left`)
    this.$(".pace").textContent = parts.join(" · ")
    const saved = this.$(".saved")
    const waiting = this.outbox.changes.filter(({ do: what }) => what !== "time" && what !== "open").length
    saved.dataset.state = this.unsaved ? "unsaved" : waiting ? "saving" : "saved"
    saved.title = this.unsaved ?? ""
    saved.textContent = this.unsaved
      ? `Not saved yet (${this.outbox.changes.length} waiting)`
      : waiting ? "Saving …" : this.savedAt ? `✓ Saved ${this.savedAt.toLocaleTimeString([], { hour12: false })}` : "✓ All saved"
    if (this.unsaved && this.shownUnsaved !== this.unsaved) this.say(this.unsaved)
    else if (!this.unsaved && this.shownUnsaved) this.say("")
    this.shownUnsaved = this.unsaved
    const places = this.$(".places")
    if (places.childElementCount !== ids.length) {
      places.replaceChildren(...ids.map((id) => {
        const button = make("button", { type: "button", tabindex: -1 })
        button.onclick = () => this.go(id)
        return button
      }))
    }
    ids.forEach((id, index) => {
      const [state, flagged] = states[index]
      const button = places.children[index]
      button.dataset.state = state
      button.dataset.flagged = String(flagged)
      const words = `Case ${index + 1}: ${SIGNS[state]}${flagged ? ", flagged" : ""}`
      button.title = words
      button.setAttribute("aria-label", words)
      if (id === this.at) button.setAttribute("aria-current", "true")
      else button.removeAttribute("aria-current")
    })
  }

  drawFilm(view) {
    const bytes = this.plate(this.at)
    const trouble = this.$(".trouble")
    if (bytes && this.drawnPlate !== this.at) {
      this.viewer.load(bytes, `case ${this.data.places.findIndex(([id]) => id === this.at) + 1} of ${this.data.title}`)
      this.drawnPlate = this.at
    }
    const shown = Boolean(bytes)
    this.$(".viewer").style.display = shown ? "" : "none"
    trouble.hidden = shown
    trouble.textContent = shown ? "" : this.isTrouble(this.at) ? this.plates[this.at] : "The image is being prepared …"
    if (!shown) this.drawnPlate = null
    this.root.dataset.image = shown ? this.at : ""
    if (this.kind === "helpfulness" && shown && view) {
      const group = this.groupOf(view)
      this.viewer.only(this.heat ? group : null)
    }
  }

  groupOf(view) {
    const report = view.reports[this.chosen.report]
    const sentence = report?.sentences[Math.max(this.chosen.sentence, 0)]
    return sentence ? `${report.name}/${sentence[0]}` : null
  }

  words(report, sentence) {
    // [start, end) of each word of a sentence; positions are characters, not UTF-16 units.
    const letters = Array.from(report.text)
    const found = []
    let start = null
    for (let place = sentence[0]; place <= sentence[1]; place++) {
      const inside = place < sentence[1] && /[\p{L}\p{N}_'-]/u.test(letters[place])
      if (inside && start === null) start = place
      if (!inside && start !== null) {
        found.push([start, place])
        start = null
      }
    }
    return found
  }

  reports(view) {
    return view.reports.map((report, at) => {
      const letters = Array.from(report.text)
      const marks = view.marks.filter((mark) => mark.report === report.name)
      const place = view.reports.length === 2 && this.kind === "preference" ? `${at + 1} · ` : ""
      const whole = this.chosen.report === at && this.chosen.sentence < 0
      const model = this.data.names?.[report.name]
      const head = make("h4", { className: this.kind === "error" ? (whole ? "here whole" : "whole") : "", text: `${place}Report ${report.name}${model ? ` (${model})` : ""}` })
      if (this.kind === "error") {
        head.append(make("small", { text: " whole report" }))
        head.onclick = () => this.choose({ report: at, sentence: -1, words: null, mark: null })
      }
      const text = make("p")
      report.sentences.forEach((sentence, number) => {
        const here = this.chosen.report === at && this.chosen.sentence === number && this.kind !== "preference"
        const words = this.words(report, sentence)
        const range = here && this.chosen.words ? [words[this.chosen.words[0]][0], words[this.chosen.words[1]][1]] : null
        const part = make("span", { className: `sentence${here ? (range ? " near here" : " here") : ""}`, "data-sentence": number })
        const answer = marks.find(({ value }) => this.kind === "helpfulness" && value.span?.[0] === sentence[0])
        if (answer) part.dataset.support = answer.value.support
        const cuts = new Set(words.flat())
        for (const { value } of marks) for (const cut of value.span ?? []) cuts.add(cut)
        const edges = [sentence[0], ...[...cuts].filter((cut) => cut > sentence[0] && cut < sentence[1]).sort((a, b) => a - b), sentence[1]]
        edges.slice(0, -1).forEach((start, index) => {
          const end = edges[index + 1]
          const piece = make("span", { text: letters.slice(start, end).join("") })
          if (range && start >= range[0] && end <= range[1]) piece.classList.add("word-here")
          if (this.kind === "error") {
            for (const mark of marks.filter(({ value }) => value.span && start >= value.span[0] && end <= value.span[1])) {
              piece.classList.add("marked")
              if (mark.value.significant) piece.classList.add("significant")
              if (this.is(mark, this.chosen.mark)) piece.classList.add("chosen")
              if (end === mark.value.span[1]) piece.append(make("sup", { text: String(view.marks.indexOf(mark) + 1) }))
            }
          }
          const word = words.findIndex((each) => start >= each[0] && end <= each[1])
          piece.onclick = (event) => {
            event.stopPropagation()
            this.clicked(at, number, word, event.shiftKey)
          }
          part.append(piece)
        })
        if (answer) part.append(make("sup", { text: answer.value.support }))
        text.append(part, " ")
      })
      if (this.kind === "preference") {
        const choice = view.marks[0]?.value.prefer
        const chosen = choice === ["first", "second"][at]
        const article = make("article", { className: chosen ? "preferred" : "" }, head, text)
        if (chosen) head.append(make("small", { text: " ✓ preferred" }))
        return article
      }
      return make("article", {}, head, text)
    })
  }

  clicked(report, sentence, word, extend) {
    const same = this.chosen.report === report && this.chosen.sentence === sentence
    let words = null
    if (same && word >= 0 && this.kind === "error") {
      const before = this.chosen.words
      if (extend && before) words = [Math.min(before[0], word), Math.max(before[1], word)]
      else if (!(before && before[0] === word && before[1] === word)) words = [word, word]
    }
    this.choose({ report, sentence, words, mark: null })
  }

  choose(what) {
    this.chosen = { ...this.chosen, ...what }
    this.draw()
  }

  observations(view) {
    const list = make("table", { className: "observations" })
    this.data.choices.observations.forEach((name, row) => {
      const given = view.marks.find(({ value }) => value.observation === name)?.value.state
      const disputed = view.disputed.some(({ question }) => question === name)
      const line = make("tr", { className: `${row === this.chosen.row ? "here" : ""}${disputed ? " disputed-row" : ""}` }, make("th", { scope: "row", text: `${disputed ? "◆ " : ""}${name}` }))
      this.data.choices.states.forEach(([state, words], index) => {
        const button = make("button", { type: "button", "aria-pressed": String(given === state), title: `${words} (${index + 1})`, text: words })
        button.onclick = () => {
          this.chosen.row = row
          this.answer(index + 1)
        }
        line.append(make("td", {}, button))
      })
      list.append(line)
    })
    return [list]
  }

  drawPalette(view) {
    const palette = this.$(".palette")
    const choices = {
      error: () => this.data.choices.errors.map(([name, words]) => [name, words]),
      preference: () => view.reports.map(({ name }) => [`Report ${name}`, ""]).concat([["No difference", ""]]),
      helpfulness: () => this.data.choices.support.map((name) => [name, ""]),
      label: () => [],
    }[this.kind]()
    const given = this.kind === "preference" ? ["first", "second", "tie"].indexOf(view.marks[0]?.value.prefer) : this.kind === "helpfulness" ? this.data.choices.support.indexOf(this.supportHere(view)) : -1
    palette.replaceChildren(...choices.map(([name, words], index) => {
      const button = make("button", { type: "button", title: words, "aria-pressed": String(index === given) }, make("kbd", { text: String(index + 1) }), ` ${name}`)
      button.disabled = !this.data.open
      button.onclick = () => this.answer(index + 1)
      return button
    }))
    if (this.kind === "helpfulness") {
      const overlay = this.viewer.header?.overlays.find(({ group }) => group === this.groupOf(view))
      const hint = make("span", { className: "hint", text: overlay && this.plate(this.at) ? overlay.label : "" })
      if (hint.textContent) hint.append(make("button", { type: "button", "data-go": "heat" }, this.heat ? "Hide " : "Show ", make("kbd", { text: "H" })))
      palette.append(hint)
    } else if (this.kind === "label") {
      palette.append(make("span", { className: "hint keyboard", text: "Keys 1 – 4 answer from left to right, ↑ ↓ change the observation." }))
    } else if (this.kind === "error") {
      palette.append(make("span", { className: "hint", text: "Choose a sentence (↑ ↓, click) or word (← →, click again), then the kind. A mark begins as significant; S changes that." }))
    }
  }

  supportHere(view) {
    const report = view.reports[this.chosen.report]
    const sentence = report?.sentences[Math.max(this.chosen.sentence, 0)]
    return view.marks.find((mark) => mark.report === report?.name && mark.value.span[0] === sentence?.[0])?.value.support
  }

  drawMarks(view) {
    const list = this.$(".marks")
    list.hidden = this.kind !== "error" || !view.marks.length
    if (list.hidden) return list.replaceChildren()
    list.replaceChildren(...view.marks.map((mark) => {
      const report = view.reports.find(({ name }) => name === mark.report)
      const words = mark.value.span ? `“${Array.from(report?.text ?? "").slice(...mark.value.span).join("")}”` : "whole report"
      const item = make("li", { className: this.is(mark, this.chosen.mark) ? "here" : "" })
      const about = make("button", { type: "button", className: "about" }, make("b", { text: mark.value.error }), ` ${view.reports.length > 1 ? `${mark.report} · ` : ""}${words}`)
      about.onclick = () => this.choose({ mark: mark.id })
      const weight = make("button", { type: "button", className: "weight", "data-significant": String(mark.value.significant), title: "Significant or not (S)", text: mark.value.significant ? "▲ significant" : "△ not significant" })
      weight.onclick = () => this.significance(mark.id)
      const remove = make("button", { type: "button", title: "Remove (Delete)", "aria-label": "Remove this mark", text: "×" })
      remove.onclick = () => this.remove(mark.id)
      for (const button of [weight, remove]) button.disabled = !this.data.open
      item.append(about, weight, remove)
      return item
    }))
  }

  drawTyping() {
    const box = this.$(".typing")
    if (box.hidden === !this.typing) return
    box.hidden = !this.typing
    if (!this.typing) return
    const view = this.view()
    const area = box.querySelector("textarea")
    box.querySelector("span").textContent = this.typing === "comment" ? "Comment (saved as you type)" : "Why is this case skipped?"
    area.maxLength = this.data.choices.comment_limit
    area.value = this.typing === "comment" ? view.comment : view.skip_reason
    area.focus()
  }

  say(words, button = "") {
    const notice = this.$(".notice")
    notice.hidden = !words
    notice.replaceChildren(make("span", { text: words }))
    if (!words) this.conflict = null
    if (button) {
      const mine = make("button", { type: "button", text: button })
      mine.onclick = () => this.useMine()
      notice.append(mine)
    }
    const close = make("button", { type: "button", text: "Esc", title: "Close" })
    close.onclick = () => this.say("")
    notice.append(close)
  }

  useMine() {
    const mine = this.conflict
    this.say("")
    if (!mine) return
    // Made anew upon what is there now; the refused one stays in the record.
    const { do: what, screen, slot, mark, fields } = mine
    this.change({ do: what, screen, ...(slot || mark ? { slot: slot || this.slotOf(mark), mark } : { fields }) })
  }

  slotOf(mark) {
    if (mark.kind === "preference") return "preference"
    if (mark.kind === "label") return `label/${mark.value.observation}`
    if (mark.kind === "helpfulness") return `helpfulness/${mark.report}/${mark.value.span.join("-")}`
    return ""
  }

  over(what, words = "") {
    this.countTime()
    const over = this.$(".over")
    over.hidden = !what
    this.overs = what
    if (!what) {
      this.root.focus({ preventScroll: true })
      return
    }
    const sheet = over.querySelector(".sheet")
    sheet.classList.toggle("wide", what === "help")
    const done = make("button", { type: "button", className: "primary", text: what === "instructions" ? "Start (Enter)" : "Close (Enter)" })
    done.onclick = () => this.over(null)
    const parts = []
    if (what === "help") {
      const titles = { always: "Case", [this.kind]: "Answer", image: "Image" }
      parts.push(make("h3", { text: "Keys" }))
      const columns = make("div", { className: "keys-columns" })
      for (const name of [this.kind, "always", "image"]) {
        columns.append(make("section", {}, make("h4", { text: titles[name] }), make("dl", {}, ...KEYS[name].flatMap(([key, does]) => [make("dt", {}, make("kbd", { text: key })), make("dd", { text: does })]))))
      }
      parts.push(columns)
    } else if (what === "instructions") {
      parts.push(make("h3", { text: this.data.title }), make("p", { className: "instructions", text: this.data.instructions || "There are no special instructions." }), make("p", { text: this.data.question }))
      const limit = this.data.seconds_left === null ? "" : ` You have ${Math.round(this.data.seconds_left / 60)} minutes of reading time; it runs only while you read.`
      parts.push(make("p", { text: `${this.data.places.length} cases.${limit} Every mark is saved at once; you can stop at any time and go on later, on another machine too. Press ? for the keys.` }))
    } else if (what === "end") {
      const states = this.data.places.map((place) => this.stateOf(place))
      const count = (wanted) => states.filter(([state]) => state === wanted).length
      const open = count("pending")
      parts.push(
        make("h3", { text: open ? "This is the last case" : "All cases are read. Thank you." }),
        make("p", { text: `${count("done")} done, ${count("skipped")} skipped, ${open} not read, ${states.filter(([, flagged]) => flagged).length} flagged.` }),
        make("p", { text: !this.data.open ? "The session is closed." : open ? "G goes to the first case that is not read." : "You can go back and change answers until the session is closed." }),
      )
    } else {
      parts.push(make("h3", { text: "Your time is over" }), make("p", { text: words }), make("p", { text: "You can still finish and change the cases that you opened." }))
    }
    sheet.replaceChildren(...parts, done)
    sheet.focus()
  }

  // --------------------------------------------------------------------------------------------------------- answers

  answer(number) {
    const view = this.view()
    if (!view || !this.data.open) return
    const report = view.reports[this.chosen.report]
    if (this.kind === "error") {
      const kind = this.data.choices.errors[number - 1]
      if (!kind || !report) return
      const sentence = report.sentences[this.chosen.sentence]
      const value = { error: kind[0], significant: true }
      if (sentence) {
        const words = this.words(report, sentence)
        value.span = this.chosen.words ? [words[this.chosen.words[0]][0], words[this.chosen.words[1]][1]] : [...sentence]
      }
      const made = this.change({ do: "mark", mark: { kind: "error", report: report.name, value } })
      this.choose({ mark: made.key })
    } else if (this.kind === "preference") {
      const prefer = ["first", "second", "tie"][number - 1]
      if (prefer) this.put(view, "preference", { kind: "preference", report: "", value: { prefer } })
    } else if (this.kind === "helpfulness") {
      const support = this.data.choices.support[number - 1]
      const at = Math.max(this.chosen.sentence, 0)
      const sentence = report?.sentences[at]
      if (!support || !sentence) return
      const mark = { kind: "helpfulness", report: report.name, value: { support, span: [...sentence] } }
      this.put(view, this.slotOf(mark), mark)
      this.move(1)
    } else {
      const state = this.data.choices.states[number - 1]
      const observation = this.data.choices.observations[this.chosen.row]
      if (!state) return
      const mark = { kind: "label", report: "", value: { observation, state: state[0] } }
      this.put(view, this.slotOf(mark), mark)
      this.choose({ row: Math.min(this.chosen.row + 1, this.data.choices.observations.length - 1) })
    }
  }

  // A question with one answer: change the mark that is there, or make it.
  put(view, slot, mark) {
    const found = view.marks.find((each) => each.slot === slot || (each.local && this.slotOf(each) === slot))
    if (found && JSON.stringify(found.value) === JSON.stringify(mark.value)) return
    if (!found) this.change({ do: "mark", mark })
    else this.change({ do: "mark", mark, ...this.nameOf(found) })
  }

  nameOf(mark) {
    return mark.slot ? { slot: mark.slot, version: mark.version } : { of: mark.local }
  }

  // A mark is named by its change until it is saved, then by its slot.
  is(mark, id) {
    return mark.id === id || mark.id === this.slots.get(id)
  }

  find(id) {
    return this.view()?.marks.find((mark) => this.is(mark, id))
  }

  significance(id = this.chosen.mark) {
    const mark = this.find(id) ?? this.view()?.marks.at(-1)
    if (!mark || this.kind !== "error" || !this.data.open) return
    const { kind, report, value } = mark
    this.chosen.mark = mark.id
    this.change({ do: "mark", mark: { kind, report, value: { ...value, significant: !value.significant } }, ...this.nameOf(mark) })
  }

  remove(id = this.chosen.mark) {
    const mark = this.find(id)
    if (!mark || !this.data.open) return
    this.chosen.mark = null
    this.change({ do: "unmark", ...this.nameOf(mark) })
  }

  nextMark() {
    const marks = this.view()?.marks ?? []
    if (!marks.length) return
    const place = marks.findIndex((mark) => this.is(mark, this.chosen.mark))
    this.choose({ mark: marks[(place + 1) % marks.length].id })
  }

  // Sentences of all reports in one line; of reports with errors to mark, each report as a whole comes first.
  move(by) {
    const view = this.view()
    if (!view) return
    if (this.kind === "label") {
      return this.choose({ row: Math.min(Math.max(this.chosen.row + by, 0), this.data.choices.observations.length - 1) })
    }
    const stops = view.reports.flatMap((report, at) => [...(this.kind === "error" ? [[at, -1]] : []), ...report.sentences.map((_, number) => [at, number])])
    const here = stops.findIndex(([report, sentence]) => report === this.chosen.report && sentence === this.chosen.sentence)
    const [report, sentence] = stops[Math.min(Math.max(here + by, 0), stops.length - 1)]
    this.choose({ report, sentence, words: null, mark: null })
  }

  moveWord(by, extend) {
    const view = this.view()
    const report = view?.reports[this.chosen.report]
    const sentence = report?.sentences[this.chosen.sentence]
    if (this.kind !== "error" || !sentence) return
    const last = this.words(report, sentence).length - 1
    if (last < 0) return
    const clip = (value) => Math.min(Math.max(value, 0), last)
    const before = this.chosen.words
    let words
    if (!before) words = by > 0 ? [0, 0] : [last, last]
    else if (extend) words = by > 0 ? [before[0], clip(before[1] + 1)] : [clip(before[0] - 1), before[1]]
    else if ((by < 0 && before[0] === 0) || (by > 0 && before[1] === last)) words = null // off the edge: the sentence again
    else words = by > 0 ? [clip(before[1] + 1), clip(before[1] + 1)] : [clip(before[0] - 1), clip(before[0] - 1)]
    this.choose({ words, mark: null })
  }

  // ---------------------------------------------------------------------------------------------------------- typing

  type(what) {
    this.typing = what
    this.draw()
  }

  typed(final) {
    const text = this.$(".typing textarea").value
    const what = this.typing
    if (what === "comment") {
      const last = this.outbox.changes.at(-1)
      if (text !== this.view().comment) {
        if (last && !last.settled && last.screen === this.at && last.fields && "comment" in last.fields) {
          last.fields.comment = text
          this.outbox.keep()
        } else this.change({ do: "annotate", fields: { comment: text } })
      }
    }
    if (!final) return
    this.typing = null
    if (what === "skip" && text.trim()) {
      this.change({ do: "annotate", fields: { state: "skipped", skip_reason: text } })
      this.root.focus({ preventScroll: true })
      this.step(1)
      return
    }
    this.draw()
    this.root.focus({ preventScroll: true })
  }

  untyped() {
    if (this.typing === "comment") return this.typed(true)
    this.typing = null
    this.draw()
    this.root.focus({ preventScroll: true })
  }

  // ------------------------------------------------------------------------------------------------------------ time

  // Adds the time since the last call to that of the open case, if it was read.
  countTime() {
    if (!this.data) return
    const now = performance.now()
    const passed = Math.min((now - this.lastTick) / 1000, 5)
    this.lastTick = now
    const reading = document.visibilityState === "visible" && now - this.touched < IDLE_SECONDS * 1000 && !this.overs
    if (reading && this.data.open && this.seen.has(this.at)) this.active += passed
  }

  tick() {
    if (!this.data || !this.at) return
    this.outbox.adopt()
    this.countTime()
    if (this.active >= TELL_TIME_EVERY) this.tellTime()
    this.drawTop()
    if (!this.sent && !this.waiting) this.send()
  }

  tellTime() {
    if (!this.at || !this.data?.open) return
    this.countTime()
    const seconds = Math.round(this.active * 10) / 10
    if (!seconds) return
    this.active = 0
    this.data.seconds += seconds
    if (this.data.seconds_left !== null) this.data.seconds_left -= seconds
    this.outbox.changes.push({ key: fresh(), screen: this.at, do: "time", seconds })
    this.outbox.keep()
    this.send()
  }

  // ---------------------------------------------------------------------------------------------------------- events

  listen() {
    const options = { signal: this.events.signal }
    // Before the page's own keys: Streamlit takes C and R for itself.
    window.addEventListener("keydown", (event) => this.key(event), { ...options, capture: true })
    for (const name of ["pointermove", "pointerdown", "keydown", "wheel"]) {
      window.addEventListener(name, () => (this.touched = performance.now()), { ...options, capture: true, passive: true })
    }
    window.addEventListener("cxr-lens-plate", ({ detail }) => {
      if (detail === this.at) this.draw()
    }, options)
    window.addEventListener("pagehide", () => this.outbox?.keep(0), options)
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "hidden") this.tellTime()
      else {
        this.look = true // another tab may have changed something
        this.send()
      }
    }, options)
    window.addEventListener("focus", () => {
      this.look = true
      if (this.outbox) this.send()
    }, options)
    this.root.addEventListener("pointerdown", () => (this.pressed = true), { ...options, capture: true })
    for (const name of ["pointerup", "pointercancel", "pointermove", "keydown"]) {
      window.addEventListener(name, (event) => {
        if (!this.pressed || event.buttons) return // a button that was let go outside the window is noticed at the next move
        this.pressed = false
        setTimeout(() => this.undrawn && this.draw()) // after the click
      }, { ...options, capture: true })
    }
    this.root.addEventListener("click", (event) => {
      const go = event.target.closest("[data-go]")?.dataset.go
      if (go) this.act(go)
    }, options)
    // After a drag on the image the keys are the report's again, so that a number is an answer and not a preset.
    for (const name of ["pointerup", "pointercancel", "click"]) {
      this.$(".film").addEventListener(name, () => {
        if (!this.onImage) this.root.focus({ preventScroll: true })
      }, options)
    }
    const area = this.$(".typing textarea")
    area.addEventListener("input", () => {
      clearTimeout(this.pause)
      if (this.typing === "comment") this.pause = setTimeout(() => this.typing === "comment" && this.typed(false), 700)
    }, options)
  }

  giveImage(on) {
    this.onImage = on
    this.$(".image-keys").hidden = !on
    if (on) this.$("canvas").focus({ preventScroll: true })
    else this.root.focus({ preventScroll: true })
  }

  act(name) {
    const acts = {
      next: () => this.next(), previous: () => this.step(-1), help: () => this.over("help"), instructions: () => this.over("instructions"),
      typed: () => this.typed(true), untyped: () => this.untyped(),
      heat: () => {
        this.heat = !this.heat
        this.draw()
      },
      first: () => {
        const open = this.data.places.find((place) => this.stateOf(place)[0] === "pending")
        if (open) this.go(open[0])
        else this.over("end")
      },
    }
    const changes = {
      undo: () => this.change({ do: "undo" }), comment: () => this.type("comment"),
      flag: () => this.change({ do: "annotate", fields: { flagged: !this.view().flagged } }),
      skip: () => {
        if (this.view().state === "skipped") this.change({ do: "annotate", fields: { state: "pending" } })
        else this.type("skip")
      },
    }
    if (acts[name]) acts[name]()
    else if (this.data.open && this.view()) changes[name]?.()
  }

  key(event) {
    if (!this.data || !this.root.isConnected) return
    const target = event.composedPath()[0]
    const mine = this.root.contains(target)
    if (!mine && (target instanceof HTMLElement) && target.matches("input, textarea, select, [contenteditable], [role=combobox]")) return
    const take = () => {
      event.preventDefault()
      event.stopImmediatePropagation()
    }
    if (target === this.$(".typing textarea")) {
      if (event.key === "Escape") { take(); this.untyped() }
      else if (event.key === "Enter" && (event.ctrlKey || event.metaKey || (this.typing === "skip" && !event.shiftKey))) { take(); this.typed(true) }
      else event.stopPropagation() // Streamlit must not take C and R for itself
      if (event.key.length === 1 && !event.defaultPrevented) return
      return
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return
    if (this.overs) {
      if (["Enter", "Escape", " ", "?"].includes(event.key)) { take(); this.over(null) }
      else if (event.key.toLowerCase() === "g" && this.overs === "end") { take(); this.over(null); this.act("first") }
      else if (event.key.toLowerCase() === "p" && this.overs === "end") { take(); this.over(null) }
      return
    }
    if (this.onImage) {
      if (event.key === "Escape" || event.key.toLowerCase() === "v") { take(); this.giveImage(false) }
      else if (event.key !== "Tab") {
        this.viewer.key(event)
        event.stopImmediatePropagation()
      }
      return
    }
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key
    if ((key === "Enter" || key === " ") && mine && target.matches("button")) return
    const digit = /^(?:Digit|Numpad)([1-9])$/.exec(event.code)?.[1] ?? (/^[1-9]$/.test(key) ? key : null)
    const keys = {
      n: () => this.act("next"), p: () => this.act("previous"), u: () => this.act("undo"), f: () => this.act("flag"),
      c: () => this.act("comment"), x: () => this.act("skip"), g: () => this.act("first"), i: () => this.act("instructions"), "?": () => this.act("help"),
      v: () => this.giveImage(true), s: () => this.significance(), m: () => this.nextMark(), Delete: () => this.remove(), Backspace: () => this.remove(),
      h: () => this.act("heat"),
      y: () => this.conflict && this.useMine(), Escape: () => this.say(""),
      ArrowUp: () => this.move(-1), ArrowDown: () => this.move(1),
      ArrowLeft: () => this.moveWord(-1, event.shiftKey), ArrowRight: () => this.moveWord(1, event.shiftKey),
      "+": () => this.viewer.act("in"), "=": () => this.viewer.act("in"), "-": () => this.viewer.act("out"), 0: () => this.viewer.act("reset"),
    }
    if (digit && !event.shiftKey) { take(); this.answer(Number(digit)) }
    else if (keys[key]) { take(); keys[key]() }
  }
}

export default function (component) {
  const { data, parentElement, setStateValue } = component
  let page = pages.get(parentElement)
  if (!page) {
    page = new Reading(parentElement.querySelector(".reading"))
    pages.set(parentElement, page)
  }
  page.receive(data, setStateValue)
  return () => {
    page.close()
    pages.delete(parentElement)
  }
}
