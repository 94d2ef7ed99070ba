// The reading page of a review session. Every change goes into an outbox that is kept in the browser's storage; the
// first of it is sent until the server says that it is stored, then the next. What is shown is what the server knows
// with the outbox on top.
import { make } from "../dom.js"
import { Viewer } from "../viewer/viewer.js"
import { answer, backTo } from "./answering.js"
import { Editor } from "./editor.js"
import { drawCase } from "./drawing.js"
import { act, listen } from "./events.js"
import { Outbox } from "./outbox.js"
import { answerOf, missingAnswers } from "./form.js"
import { advance, give, rowHere } from "./form_answers.js"
import { firstChoice, missing } from "./questions.js"
import { ReadingClock } from "./reading_clock.js"
import { SecondWindow } from "./second_window.js"
import { Prior } from "./prior.js"
import { Sender } from "./sender.js"
import { onTop, slotOf } from "./settling.js"
import { sheetOf } from "./sheets.js"
import { browserStorage } from "./storage.js"
import { drawTop } from "./top.js"

const TELL_TIME_EVERY = 20 // seconds
const CLOSING = { instructions: "Start (Enter)", pause: "Go on (Enter)", feedback: "Next case (Enter)" }

export class Reading {
  constructor(root) {
    this.root = root
    this.second = new SecondWindow(this)
    this.prior = new Prior(this)
    this.own = new Viewer(root.querySelector(".viewer"))
    this.editor = new Editor(this)
    this.sender = new Sender(this)
    this.clock = new ReadingClock()
    this.screens = new Map() // what the server knows of each case
    this.plates = {} // by case: "ready", "waiting", or what is wrong with its image
    this.at = null
    this.seen = new Set() // cases that were opened
    this.chosen = firstChoice()
    this.heat = true // what is highlighted is shown
    this.typing = null // "comment", "skip" or "answer", while the field is open
    this.written = null // the row that is answered by what is typed
    this.region = null // drawn on the image, for the next mark: left, top, right, bottom, fractions
    this.own.ask = (region) => {
      this.region = region
      this.draw()
    }
    this.pressed = false // a button of the mouse
    this.pause = 0 // timer that saves a comment
    this.events = new AbortController()
    listen(this, this.events.signal)
    this.timer = setInterval(() => this.tick(), 1000)
  }

  // Where the image is: in this window, or in one of its own.
  get viewer() {
    return this.second.viewer ?? this.own
  }

  $(selector) {
    return this.root.querySelector(selector)
  }

  close() {
    this.sender.close()
    this.leave()
    this.events.abort()
    this.prior.close()
    this.second.close()
    this.own.close()
    clearInterval(this.timer)
    clearTimeout(this.pause)
  }

  // What was typed is kept, and the next page may take over the outbox at once.
  leave() {
    if (this.typing && this.typing !== "skip") this.typed(false)
    this.editor.flush()
    this.outbox?.keep(0)
  }

  // ------------------------------------------------------------------------------------------------- server's answers

  receive(data, setStateValue) {
    this.sender.set = setStateValue
    if (data.tick === this.lastAnswer && this.at) return
    this.lastAnswer = data.tick
    if (data.session && (this.data?.session !== data.session || this.data.reader !== data.reader)) {
      this.outbox = new Outbox(data.session, data.reader)
      this.at = null
      this.screens.clear()
    }
    const first = !this.data
    if (data.session) this.data = data
    Object.assign(this.plates, data.plates)
    for (const [id, screen] of Object.entries(data.screens ?? {})) this.screens.set(id, screen)
    this.sender.heard(data)
    if (data.ack && this.outbox) this.acknowledge(data.ack)
    if (data.problem) this.say(data.problem)
    this.findPlace(data, first)
    this.draw()
    this.sender.send()
  }

  // Which case or sheet is open after an answer of the server.
  findPlace(data, first) {
    if (this.at && data.session && !data.places.some(([id]) => id === this.at)) this.at = null // the next sitting opened
    if (this.awaits && this.screens.get(this.awaits)?.feedback) {
      this.awaits = null
      this.over("feedback")
    }
    if (!this.at && data.at && this.data) this.enter(first)
    if (this.overs === "end" && data.ack) this.over("end") // when the next sitting opens is known once the last case is stored
  }

  // Open the case at which the reader stopped, or that was open when the page loaded itself anew.
  enter(first) {
    const { places, at } = this.data
    const read = places.filter(([, state]) => state !== "pending").length
    if (first && !this.data.preview) this.over(read === places.length ? "end" : read ? null : "instructions")
    const storage = browserStorage("sessionStorage")
    const before = storage.getItem(`${this.outbox.prefix}at`)
    storage.removeItem(`${this.outbox.prefix}at`)
    this.go(places.some(([id]) => id === before) ? before : at)
  }

  // A server that was started anew knows nothing of this page, and answers no request of it: load it again.
  async recover() {
    if (this.typing || !this.outbox.survives) return // nothing may be lost
    const health = await fetch(new URL("_stcore/health", document.baseURI), { cache: "no-store" }).catch(() => null)
    if (!health?.ok || !this.sender.silent || this.events.signal.aborted) return
    browserStorage("sessionStorage").setItem(`${this.outbox.prefix}at`, this.at)
    this.reloads = true
    location.reload()
  }

  acknowledge(ack) {
    const change = this.sender.acknowledged(ack)
    if (!change) return
    if (ack.status === "saved") {
      this.savedAt = new Date()
      if (ack.told) this.say(ack.told)
    } else if (change.do === "open") {
      this.seen.delete(change.screen)
      if (change.screen === this.at && this.seen.has(this.from)) this.go(this.from)
      if (this.data.open) this.over("time", ack.message)
    } else if (change.do === "edit") {
      this.editor.notTaken(change, ack.status === "conflict" ? undefined : ack.message)
    } else if (ack.status === "conflict") {
      this.conflict = change
      const mine = change.do === "mark" || change.do === "annotate" ? "Use mine instead (Y)" : ""
      this.say(`${ack.message} What you see is what is there now.`, mine)
    } else if (change.do !== "time") this.notSaved(change, ack)
  }

  notSaved(change, ack) {
    const typed = change.fields?.comment || change.fields?.skip_reason // nobody should have to type it again
    this.say(`Not saved: ${ack.message}${typed ? ` You had typed: “${typed}”` : ""}`)
    if (change.fields?.state && ack.screen) this.go(ack.screen)
    if (change.mark && change.screen === this.at) backTo(this, change.mark)
  }

  // The answer to the last request is late.
  late() {
    drawTop(this)
  }

  // Screens and images that are needed now or next.
  lacking() {
    const ids = this.data.places.map(([id]) => id)
    const place = ids.indexOf(this.at)
    const near = [ids[place + 1], ids[place + 2], ids[place - 1]].filter(Boolean)
    return {
      screens: near.filter((id) => !this.screens.has(id)),
      plates: [this.at, ...near].filter((id) => id && !this.plate(id) && !this.trouble(id)),
    }
  }

  change(fields) {
    if (fields.fields?.state) this.tellTime() // before the case is finished or skipped, so that "saved" means its time too
    const change = this.outbox.add({ screen: this.at, ...fields })
    this.draw()
    this.sender.send()
    return change
  }

  plate(id) {
    return window.cxrLensPlates?.get(id)
  }

  // What is wrong with the image of a case; null if nothing is, as far as is known.
  trouble(id) {
    const state = this.plates[id]
    return !state || state === "ready" || state === "waiting" ? null : state
  }

  // --------------------------------------------------------------------------------------------------- what is shown

  view(id = this.at) {
    const screen = this.screens.get(id)
    return screen ? onTop(screen, this.outbox.changes, this.outbox.slots) : null
  }

  get kind() {
    return this.data.kind
  }

  // What the first question offers, where a rubric has a page of its own.
  get choices() {
    const [{ options, explained, items }] = this.data.questions
    return {
      errors: options.map(([name]) => [name, explained[name] ?? ""]), support: options.map(([, words]) => words),
      observations: items, states: options,
    }
  }

  stateOf([id, state, flagged]) {
    const view = this.view(id)
    return view ? [view.state, view.flagged] : [state, flagged]
  }

  // A mark is named by its change until it is saved, then by its slot.
  is(mark, id) {
    return mark.id === id || mark.id === this.outbox.slots.get(id)
  }

  find(id) {
    return this.view()?.marks.find((mark) => this.is(mark, id))
  }

  go(id) {
    if (id === this.at) return
    if (this.typing && this.typing !== "skip") this.typed(false)
    this.tellTime()
    this.clock.skip()
    this.region = null
    this.from = this.at
    this.at = id
    this.typing = null
    this.chosen = firstChoice(this.kind, this.view(id), this.choices.observations)
    if (this.data.open && !this.seen.has(id)) {
      this.seen.add(id)
      this.outbox.add({ screen: id, do: "open" })
    }
    this.draw()
    this.focus()
    this.sender.send()
  }

  // Where keys go: into the text that is edited, else to the page.
  focus() {
    ;(this.editor.takesKeys && !this.overs ? this.editor.area : this.root).focus({ preventScroll: true })
  }

  step(by) {
    const ids = this.data.places.map(([id]) => id)
    const next = ids[ids.indexOf(this.at) + by]
    if (next) this.go(next)
    else if (by > 0) this.over("end")
  }

  next() {
    const view = this.view()
    if (!view) return
    if (this.data.open && view.state === "pending") {
      if (!this.editor.finish(view)) return
      const lack = this.kind === "answer" ? missingAnswers(this.data.questions, this.view()) : missing(this.kind, view, this.choices.observations)
      if (lack && this.warned !== this.at) {
        this.warned = this.at
        this.say(`Not answered yet: ${lack}. Answer, skip with a reason (X), or press N again to leave the case open.`)
        return
      }
      if (!lack) this.change({ do: "annotate", fields: { state: "done" } })
      if (!lack && view.practice) {
        this.awaits = this.at // what was expected comes with the answer
        return
      }
    }
    this.say("")
    this.step(1)
  }

  choose(what) {
    this.chosen = { ...this.chosen, ...what }
    this.draw()
  }

  answer(number) {
    answer(this, number)
  }

  draw() {
    if (!this.data || !this.at) return
    this.undrawn = this.pressed // what is being clicked must stay until it is let go
    if (this.pressed) return
    drawTop(this)
    drawCase(this)
  }

  say(words, button = "") {
    const notice = this.$(".notice")
    notice.hidden = !words
    if (!words) this.conflict = null
    const mine = make("button", { type: "button", text: button })
    mine.onclick = () => this.useMine()
    const close = make("button", { type: "button", text: "Esc", title: "Close" })
    close.onclick = () => this.say("")
    notice.replaceChildren(make("span", { text: words }), ...(button ? [mine] : []), close)
  }

  // Made anew upon what is there now; the refused one stays in the record.
  useMine() {
    const mine = this.conflict
    this.say("")
    if (!mine) return
    const { do: what, screen, slot, mark, fields } = mine
    this.change({ do: what, screen, ...(slot || mark ? { slot: slot || slotOf(mark), mark } : { fields }) })
  }

  over(what, words = "") {
    this.countTime()
    const goesOn = this.overs === "feedback" && !what
    this.overs = what
    const over = this.$(".over")
    over.hidden = !what
    if (goesOn) this.step(1)
    if (!what) return this.focus()
    const sheet = over.querySelector(".sheet")
    sheet.classList.toggle("wide", what === "help")
    const done = make("button", { type: "button", className: "primary", text: CLOSING[what] ?? "Close (Enter)" })
    done.onclick = () => this.over(null)
    sheet.replaceChildren(...sheetOf(this, what, words), done)
    sheet.focus()
  }

  // ---------------------------------------------------------------------------------------------------------- typing

  type(what) {
    if (this.typing && this.typing !== "skip") this.typed(false)
    this.drawnTyping = null // another row may be written
    this.typing = what
    this.written = what === "answer" ? rowHere(this) : null
    this.draw()
  }

  typed(final) {
    const text = this.$(".typing textarea").value
    const what = this.typing
    if (what === "comment" && this.view() && text !== this.view().comment) this.comment(text)
    if (what === "answer" && this.view()) this.write(text, final)
    if (!final) return
    this.typing = null
    if (what === "skip" && text.trim()) this.change({ do: "annotate", fields: { state: "skipped", skip_reason: text } })
    this.draw()
    this.focus()
    if (what === "skip" && text.trim()) this.step(1)
    if (what === "answer" && this.view()) advance(this, this.written)
  }

  // The text of a question; what waits to be sent is changed where it waits. An empty one is an answer only to the
  // question what should stand there instead, when the reader is done with it.
  write(text, final) {
    const view = this.view()
    const row = this.written
    const before = answerOf(row, view.marks)
    if (before && text === before.value.answer) return
    if (!text.trim() && !(final && row.question.kind === "replacement")) return
    const last = this.outbox.changes.at(-1)
    if (last && !last.settled && last.screen === this.at && last.mark && slotOf(last.mark) === row.slot) {
      last.mark.value.answer = text
      this.outbox.keep()
    } else give(this, view, row, text)
  }

  // The region that was drawn, for a mark.
  takeRegion() {
    const { region } = this
    this.region = null
    return region
  }

  // The tool for regions, where marks have any, and the region that was drawn, or is that of the chosen mark.
  drawRegion() {
    const { viewer } = this
    const wanted = this.data.questions.some(({ kind, on }) => kind === "mark" && on.includes("region"))
    viewer.header.regions = wanted
    viewer.cover = "none"
    const tool = viewer.root.querySelector('[data-tool="region"]')
    tool.hidden = !wanted
    tool.title = "Drag draws a box for the next mark (B)"
    const chosen = this.view()?.marks.find((mark) => mark.value.id === this.chosen.mark || this.is(mark, this.chosen.mark))
    const region = this.region ?? chosen?.value.region ?? null
    if (viewer.region === region) return
    viewer.region = region
    viewer.draw()
  }

  // A comment that waits to be sent is changed where it waits.
  comment(text) {
    const last = this.outbox.changes.at(-1)
    if (last && !last.settled && last.screen === this.at && last.fields && "comment" in last.fields) {
      last.fields.comment = text
      this.outbox.keep()
    } else this.change({ do: "annotate", fields: { comment: text } })
  }

  untyped() {
    if (this.typing && this.typing !== "skip") return this.typed(true)
    this.typing = null
    this.draw()
    this.focus()
  }

  // ------------------------------------------------------------------------------------------------------------ time

  countTime() {
    if (!this.data) return
    this.clock.count(document.visibilityState === "visible" && !this.overs && this.data.open && this.seen.has(this.at))
  }

  tick() {
    if (!this.data || !this.at) return
    this.outbox.adopt()
    this.second.look()
    this.countTime()
    if (this.clock.active >= TELL_TIME_EVERY) this.tellTime()
    drawTop(this)
    this.sender.send()
  }

  tellTime() {
    if (!this.at || !this.data?.open) return
    this.countTime()
    const seconds = this.clock.take()
    if (!seconds) return
    this.data.seconds += seconds
    if (this.data.seconds_left !== null) this.data.seconds_left -= seconds
    this.outbox.add({ screen: this.at, do: "time", seconds })
    this.sender.send()
  }

  // Whether something that the reader did is not stored yet.
  get saves() {
    return Boolean(this.outbox?.changes.some(({ do: what }) => what !== "time" && what !== "open"))
  }

  // Another tab may have changed something.
  lookAgain() {
    this.sender.look = true
    this.sender.send()
  }

  giveImage(on) {
    this.onImage = on
    this.$(".image-keys").hidden = !on
    if (on) this.$("canvas").focus({ preventScroll: true })
    else this.focus()
  }

  act(name) {
    act(this, name)
  }

  firstOpen() {
    const open = this.data.places.find((place) => this.stateOf(place)[0] === "pending")
    if (open) this.go(open[0])
    else this.over("end")
  }
}
