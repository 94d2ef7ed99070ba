// Sends the outbox: the first change until the server says what became of it, then the next. The same requests ask for screens
// and images that are needed next.
import { fresh } from "./outbox.js"
import { settle } from "./settling.js"

export const AGAIN = [2, 4, 8, 15] // seconds between tries to save
export const LATE = 4 // seconds without an answer until it is said
export const REFUSED_FOR = 5 // seconds until a page that was refused asks again of itself
export const SILENT = 5 // requests without an answer until the page is loaded anew, if the server is there
const POLL = 350 // ms between requests for images that are being prepared
const MOST_PLATES = 3 // that one request asks for

export class Sender {
  // ``page`` has ``outbox``, ``at`` and ``screens``; ``lacking()`` gives the screens and images that it needs, ``late()`` is
  // called when an answer is late, ``recover()`` when the server seems to have forgotten the page.
  constructor(page, now = () => performance.now()) {
    this.page = page
    this.now = now
    this.tab = fresh().slice(0, 8)
    this.count = 0
    this.sent = null // tick of the request that is without an answer
    this.waiting = false // until the next try to save
    this.look = false // another tab may have changed something
    this.unsaved = "" // why what the reader did is not saved yet
    this.tries = 0
    this.silent = 0
    this.asked = -Infinity
  }

  close() {
    for (const timer of [this.retry, this.lateness, this.poll]) clearTimeout(timer)
    this.set = null
  }

  // An answer came; to what was not sent, or is not the last, as after the server began anew, it is none.
  heard({ tick, problem }) {
    if (tick === this.sent) {
      this.sent = null
      clearTimeout(this.lateness)
      this.silent = 0
    }
    if (problem) this.asked = this.now() + REFUSED_FOR * 1000 // what the reader does is sent at once all the same
  }

  // The change that an answer is about, if that is done with.
  acknowledged(ack) {
    const { outbox } = this.page
    if (outbox.first?.key !== ack.key) return null
    if (ack.status === "again") {
      this.unsaved = `${ack.message} ${this.kept()} and are sent again by themselves.`
      this.waiting = true
      clearTimeout(this.retry)
      this.retry = setTimeout(() => this.send(true), AGAIN[Math.min(this.tries++, AGAIN.length - 1)] * 1000)
      return null
    }
    this.tries = 0
    this.waiting = false
    this.unsaved = ""
    return outbox.shift(ack)
  }

  // Where what waits is kept, in words.
  kept() {
    return this.page.outbox.survives
      ? "Your changes are kept in this browser"
      : "Do not close this page: your changes are kept only here"
  }

  // The first change that can be sent, and the screen that must come first.
  next() {
    const { outbox, screens } = this.page
    for (let change = outbox.first; change; change = outbox.first) {
      if (this.page.editor?.holds(change)) break // it is still being typed
      const what = settle(change, screens.get(change.screen), outbox.slots)
      if (what === "fetch") return { change: null, before: [change.screen] }
      if (what === "send") {
        outbox.keep()
        return { change, before: [] }
      }
      outbox.shift()
    }
    return { change: null, before: [] }
  }

  send(again = false) {
    if (!this.set || !this.page.outbox || this.sent || (this.waiting && !again)) return
    this.waiting = false
    const { change, before } = this.next()
    const { screens, plates } = this.page.lacking()
    const want = [...before, ...screens]
    if (!change && !want.length && !this.look) {
      if (!plates.length) return
      const wait = this.asked + POLL - this.now()
      if (wait > 0) {
        clearTimeout(this.poll)
        this.poll = setTimeout(() => this.send(), Math.min(wait, POLL) + 10)
        return
      }
    }
    this.look = false
    this.asked = this.now()
    this.sent = `${this.tab}-${++this.count}`
    this.set("request", { tick: this.sent, at: this.page.at, want, plates: plates.slice(0, MOST_PLATES), change })
    clearTimeout(this.lateness)
    this.lateness = setTimeout(() => this.wasLate(), LATE * 1000 * (1 + this.tries))
  }

  wasLate() {
    if (this.page.outbox.first) {
      this.unsaved = `The server does not answer. ${this.kept()} and are sent as soon as it does.`
    }
    this.sent = null
    this.page.late()
    this.send(true)
    if (++this.silent >= SILENT) this.page.recover()
  }
}
