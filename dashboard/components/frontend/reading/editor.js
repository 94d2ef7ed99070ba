// The editor of a report. What is typed is in the outbox, and so in the browser's storage, with each key; it is sent when
// no key has come for a moment, or at least every two seconds. The field is the reader's: it gets another text only when a
// case is opened, or what is stored was changed elsewhere while nothing typed here waits.
import { make } from "../dom.js"
import { nameOf } from "./settling.js"
import { drawTop } from "./top.js"
import { Typing } from "./typing.js"
import { textOf } from "./words.js"

const QUIET = 400 // ms without a key until a text is sent
const OFTEN = 2000 // ms that the first unsent key waits at most

// As a text area and a database hold a text.
function plain(text) {
  return text.replace(/\r\n?/g, "\n").replaceAll("\0", "").toWellFormed()
}

export class Editor {
  constructor(page) {
    this.page = page
    this.box = page.$(".editor")
    this.area = this.box.querySelector("textarea")
    this.typing = new Typing()
    this.at = null // the case that is shown
    this.text = ""
    this.waiting = null // the change into which further keys go
    this.due = 0 // when it may be sent
    this.refused = new Map() // by case: the own text that the server did not take, and why; no why: another tab came first
  }

  get question() {
    return this.page.data?.questions.find(({ kind }) => kind === "edit")
  }

  // Whether keys belong to the text.
  get takesKeys() {
    return Boolean(this.question) && this.page.data.open && !matchMedia("(pointer: coarse)").matches
  }

  markOn(view) {
    return view?.marks.find(({ value }) => value.question === this.question.id)
  }

  draw(view) {
    const { question, page, area, box } = this
    box.hidden = !question || !view
    if (box.hidden) return
    const stored = plain(this.markOn(view)?.value.answer ?? view.reports[0].text)
    if (this.at !== page.at) this.enter(this.refused.get(page.at)?.text ?? stored)
    else if (!this.refused.has(this.at) && this.text !== stored) this.show(stored)
    area.maxLength = question.limit
    area.readOnly = !page.data.open || this.refused.has(this.at)
    area.placeholder = "Type or dictate the report."
    this.drawOther()
    this.drawFound(view)
  }

  enter(text) {
    this.at = this.page.at
    this.waiting = null
    this.typing.open()
    this.show(text)
    this.area.scrollTop = 0
  }

  show(text) {
    this.area.value = this.text = text
  }

  // A key, a dictated word, something pasted, or undone.
  input() {
    const { page } = this
    page.clock.touch()
    const text = plain(this.area.value)
    if (text === this.text || !page.data.open || !page.view()) return
    this.typing.key(this.text, text)
    this.text = text
    this.keep()
    if (this.area.value.length >= this.question.limit) page.say(`A report has at most ${this.question.limit.toLocaleString("en")} characters.`)
    drawTop(page)
  }

  keep(text = this.text, bout = this.typing.told()) {
    const { page, waiting } = this
    const now = performance.now()
    if (waiting && !waiting.settled && page.outbox.changes.includes(waiting)) {
      waiting.mark.value.answer = text
      waiting.bout = bout
      page.outbox.keep()
    } else {
      const found = this.markOn(page.view())
      const mark = { kind: "answer", report: page.view().reports[0].name, value: { question: this.question.id, answer: text } }
      this.waiting = page.outbox.add({ screen: page.at, do: "edit", mark, bout, ...(found ? nameOf(found) : {}) })
      this.since = now
    }
    this.due = Math.min(now + QUIET, this.since + OFTEN)
    clearTimeout(this.timer)
    this.timer = setTimeout(() => page.sender.send(), this.due - now + 5)
  }

  // Whether a change is still being typed.
  holds(change) {
    return change === this.waiting && performance.now() < this.due
  }

  // What is typed is sent now.
  flush() {
    this.due = 0
    clearTimeout(this.timer)
  }

  // Before a case is finished: a draft that was left as it is is a report too. False where the reader must choose first.
  finish(view) {
    if (!this.question) return true
    if (this.refused.has(this.at)) {
      this.page.say("Choose first which text is the report: yours, or that of the other tab.")
      return false
    }
    const [{ text }] = view.reports
    if (!this.markOn(view) && text.trim()) this.keep(text, null)
    this.flush()
    return true
  }

  // Pasted text is plain; what is too long for a report is not pasted at all.
  paste(event) {
    const pasted = event.clipboardData?.getData("text/plain") ?? ""
    const { selectionStart, selectionEnd, value } = this.area
    const length = value.length - (selectionEnd - selectionStart) + pasted.length
    if (length <= this.question.limit) return
    event.preventDefault()
    const [many, most] = [pasted.length, this.question.limit].map((count) => count.toLocaleString("en"))
    this.page.say(`Nothing was pasted: it has ${many} characters, and a report has at most ${most}.`)
  }

  // ------------------------------------------------------------------------------------------------- another tab's text

  get theirs() {
    return plain(this.markOn(this.page.screens.get(this.at))?.value.answer ?? "")
  }

  // The server did not take a text: another tab came first, and both are in the record; or for what ``why`` says.
  notTaken(change, why = "") {
    const { page } = this
    const again = page.outbox.changes.some(({ do: what, screen }) => what === "edit" && screen === change.screen)
    const text = change.screen === this.at ? this.text : plain(change.mark.value.answer)
    const theirs = plain(this.markOn(page.screens.get(change.screen))?.value.answer ?? "")
    if (again || text === theirs) return // what was typed since is on its way
    this.refused.set(change.screen, { text, why })
    if (change.screen !== page.at && page.data.places.some(([id]) => id === change.screen)) page.go(change.screen)
  }

  choose(mine) {
    const { page } = this
    if (mine && this.refused.get(this.at)?.why) return
    const text = mine ? this.text : this.theirs
    this.refused.delete(this.at)
    this.waiting = null
    page.say("")
    if (mine) this.keep(text)
    else this.show(text)
    this.flush()
    page.draw()
    page.sender.send()
    page.focus()
  }

  drawOther() {
    const other = this.box.querySelector(".other")
    other.hidden = !this.refused.has(this.at)
    if (other.hidden) return
    const { why } = this.refused.get(this.at)
    if (why) {
      const drop = make("button", { type: "button", text: "Close it" })
      drop.onclick = () => this.choose(false)
      return other.replaceChildren(make("p", { text: `Not saved: ${why} Copy your text, below, if you need it.` }), make("div", { className: "row" }, drop))
    }
    const keep = make("button", { type: "button", className: "primary", text: "Keep my text, below (Y)" })
    keep.onclick = () => this.choose(true)
    const take = make("button", { type: "button", text: "Take the other text" })
    take.onclick = () => this.choose(false)
    other.replaceChildren(
      make("p", { text: "This report was changed in another tab, where it now says:" }),
      make("blockquote", { text: this.theirs || "(nothing)" }),
      make("p", { text: "Both texts stay in the record. Which is the report?" }),
      make("div", { className: "row" }, keep, take),
    )
  }

  // -------------------------------------------------------------------------------------------------- what the text says

  drawFound(view) {
    const text = this.markOn(this.page.screens.get(this.at))?.value.answer ?? view.reports[0].text
    const found = this.box.querySelector(".found")
    const said = view.findings.map((each) => each.join("/")).join()
    if (found.dataset.said === `${this.at}/${said}`) return
    found.dataset.said = `${this.at}/${said}`
    found.replaceChildren(...view.findings.map(([observation, state, start, end]) => {
      const words = textOf(text, [start, end])
      const button = make("button", { type: "button", "data-state": state, title: "Show it in the text" }, make("b", { text: `${observation}: ${state}` }), ` “${words}”`)
      button.onclick = () => this.select(words, Array.from(text).slice(0, start).join("").length)
      return make("li", {}, button)
    }))
  }

  select(words, near) {
    const { value } = this.area
    const at = value.startsWith(words, near) ? near : value.indexOf(words)
    if (at < 0) return
    this.area.focus()
    this.area.setSelectionRange(at, at + words.length)
  }
}
