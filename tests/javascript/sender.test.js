// Sending against a server that stores, refuses, is slow, loses requests and answers: what arrives, in which order, how often.
import assert from "node:assert/strict"
import { afterEach, beforeEach, describe, mock, test } from "node:test"
import { Outbox } from "../../dashboard/components/frontend/reading/outbox.js"
import { AGAIN, LATE, REFUSED_FOR, SILENT, Sender } from "../../dashboard/components/frontend/reading/sender.js"
import { nameOf, onTop } from "../../dashboard/components/frontend/reading/settling.js"
import { durable, randomly } from "./helpers.js"

const CASES = ["c1", "c2"]

// Stores as dashboard/reviews/reading.py does: a key once, a mark only upon the version that is there.
class Server {
  constructor() {
    this.marks = new Map(CASES.map((id) => [id, new Map()])) // slot -> { version, value, deleted }
    this.versions = new Map(CASES.map((id) => [id, 0]))
    this.comments = new Map()
    this.acks = new Map()
    this.made = new Map() // slot -> key of the change that made the mark
    this.log = [] // keys, as they were stored
    this.conflicts = 0
  }

  answer({ tick, change, want = [] }) {
    const ack = change && this.store(change)
    const ids = [...want, ...(change ? [change.screen] : [])]
    return { tick, ack, screens: Object.fromEntries(ids.map((id) => [id, this.screen(id)])) }
  }

  store(change) {
    if (!this.acks.has(change.key)) {
      this.log.push(change.key)
      this.acks.set(change.key, { key: change.key, screen: change.screen, status: "saved", ...this.apply(change) })
    }
    return this.acks.get(change.key)
  }

  apply({ do: what, key, screen, slot, version, mark, fields }) {
    const marks = this.marks.get(screen)
    const place = slot || `error/A/${this.acks.size}`
    if (what === "mark" && !slot) this.made.set(place, key)
    const found = marks.get(place)
    if (what === "annotate" || what === "mark" || what === "unmark") {
      const there = what === "annotate" ? this.versions.get(screen) : (found?.version ?? 0)
      if (there !== version || found?.deleted) {
        this.conflicts += 1
        return { status: "conflict" }
      }
    }
    if (what === "annotate") {
      this.comments.set(screen, fields.comment)
      this.versions.set(screen, version + 1)
      return { version: version + 1 }
    }
    if (what === "mark") marks.set(place, { version: version + 1, value: mark.value })
    if (what === "unmark") marks.set(place, { version: version + 1, deleted: true })
    return what === "mark" ? { slot: place, version: version + 1 } : {}
  }

  screen(id) {
    const marks = [...this.marks.get(id)].filter(([, { deleted }]) => !deleted)
    return {
      id, version: this.versions.get(id), comment: this.comments.get(id) ?? "",
      marks: marks.map(([slot, { version, value }]) => ({ slot, version, kind: "error", report: "A", value })),
    }
  }
}

// A tab: the part of the page that the sender uses.
class Tab {
  constructor(storage, carry, plates = []) {
    this.storage = storage
    this.outbox = new Outbox("s1", "anna", { storage, now: Date.now })
    this.takenOver = new Set(this.outbox.changes.map(({ key }) => key))
    this.screens = new Map()
    this.at = "c1"
    this.plates = plates
    this.recovered = 0
    this.lates = 0
    this.requests = []
    this.sender = new Sender(this, Date.now)
    this.sender.set = (name, request) => {
      assert.equal(name, "request")
      this.requests.push(request)
      carry(structuredClone(request), this)
    }
  }

  // A reader acts on what is shown: not before the case is there, and what was taken over is sent.
  get ready() {
    return this.screens.has("c1") && !this.outbox.changes.some(({ key }) => this.takenOver.has(key))
  }

  lacking() {
    return { screens: CASES.filter((id) => !this.screens.has(id)), plates: this.plates }
  }

  late() {
    this.lates += 1
  }

  recover() {
    this.recovered += 1
  }

  receive(answer) {
    if (this.closed) return
    for (const [id, screen] of Object.entries(answer.screens ?? {})) this.screens.set(id, screen)
    this.sender.heard(answer)
    if (answer.ack) this.sender.acknowledged(answer.ack)
    this.sender.send()
  }

  change(fields) {
    const change = this.outbox.add({ screen: "c1", ...fields })
    this.sender.send()
    return change
  }

  view(id = "c1") {
    const screen = this.screens.get(id) ?? { id, marks: [] }
    return onTop(screen, this.outbox.changes, this.outbox.slots)
  }

  close() {
    this.closed = true
    this.sender.close()
    this.outbox.keep(0)
  }
}

const error = (value) => ({ kind: "error", report: "A", value })

describe("sending", () => {
  beforeEach(() => mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1e6 }))
  afterEach(() => mock.timers.reset())
  // In small steps: what a timer starts counts from the step's end.
  const after = (seconds) => {
    for (let left = Math.round(seconds * 1000); left > 0; left -= 50) mock.timers.tick(Math.min(left, 50))
  }

  test("one change at a time, the next when the server has told of the first", () => {
    const server = new Server()
    const waiting = []
    const tab = new Tab(durable(), (request) => waiting.push(request))
    const made = ["a", "b", "c"].map((value) => tab.change({ do: "mark", mark: error({ value }) }))
    for (let round = 0; round < 9 && waiting.length; round++) {
      assert.equal(waiting.length, 1)
      tab.receive(server.answer(waiting.pop()))
    }
    assert.deepEqual(server.log, made.map(({ key }) => key))
    assert.equal(tab.outbox.first, null)
  })

  test("what could not be stored is sent again, the same, after longer and longer waits; meanwhile nothing else", () => {
    const tab = new Tab(durable(), () => {})
    for (const id of CASES) tab.screens.set(id, new Server().screen(id))
    const first = tab.change({ do: "mark", mark: error({}) })
    tab.change({ do: "mark", mark: error({}) })
    for (const wait of [...AGAIN, AGAIN.at(-1)]) {
      const { tick, change } = tab.requests.at(-1)
      assert.equal(change.key, first.key)
      tab.receive({ tick, ack: { key: first.key, status: "again", message: "The disk is full." } })
      assert.match(tab.sender.unsaved, /^The disk is full\. Your changes are kept in this browser/)
      const sent = tab.requests.length
      after(wait - 0.01)
      tab.sender.send()
      assert.equal(tab.requests.length, sent)
      after(0.02)
      assert.equal(tab.requests.length, sent + 1)
    }
    assert.ok(tab.requests.every(({ change }) => JSON.stringify(change) === JSON.stringify(tab.requests[0].change)))
    tab.receive({ tick: tab.requests.at(-1).tick, ack: { key: first.key, status: "saved", slot: "error/A/1", version: 1 } })
    assert.equal(tab.sender.unsaved, "")
    assert.notEqual(tab.requests.at(-1).change.key, first.key)
  })

  test("where nothing can be kept the page says not to close it", () => {
    const tab = new Tab(Object.assign(durable(), { forgets: true }), () => {})
    tab.screens.set("c1", new Server().screen("c1"))
    tab.change({ do: "mark", mark: error({}) })
    after(LATE + 0.01)
    assert.match(tab.sender.unsaved, /Do not close this page/)
  })

  test("a lost answer is waited for, then the change is sent again and stored once", () => {
    const server = new Server()
    let lost = 0
    const tab = new Tab(durable(), (request, from) => {
      const answer = server.answer(request)
      if (request.change && lost++ < 2) return
      from.receive(answer)
    })
    tab.change({ do: "mark", mark: error({}) })
    assert.equal(tab.sender.unsaved, "")
    after(LATE + 0.01)
    assert.equal(tab.lates, 1)
    assert.match(tab.sender.unsaved, /does not answer/)
    after(LATE + 0.01)
    assert.equal(tab.sender.unsaved, "")
    assert.equal(server.marks.get("c1").size, 1)
    assert.equal(tab.outbox.first, null)
  })

  test("a server that knows nothing of the page any more is left by loading it anew, not sooner", () => {
    const tab = new Tab(durable(), () => {})
    tab.change({ do: "open" })
    for (let request = 1; request < SILENT; request++) after(LATE + 0.01)
    assert.equal(tab.recovered, 0)
    after(LATE + 0.01)
    assert.equal(tab.recovered, 1)
  })

  test("what the server says of another change is not taken for the first's", () => {
    const tab = new Tab(durable(), () => {})
    tab.change({ do: "open" })
    tab.receive({ tick: tab.requests[0].tick, ack: { key: "another", status: "saved" } })
    assert.equal(tab.outbox.changes.length, 1)
  })

  test("what was sent once is sent as it was by the tab that takes over, whatever is there by then", () => {
    const storage = durable()
    const tab = new Tab(storage, () => {})
    tab.screens.set("c1", { id: "c1", version: 4, marks: [] })
    tab.change({ do: "annotate", fields: { comment: "x" } })
    tab.sender.close() // with the whole browser: nothing more is kept
    after(7)
    const next = new Tab(storage, () => {})
    next.screens.set("c1", { id: "c1", version: 5, marks: [] })
    next.sender.send()
    assert.deepEqual(next.requests[0].change, tab.requests[0].change)
  })

  test("an answer to another request than the last is not taken for its answer", () => {
    const tab = new Tab(durable(), () => {})
    tab.change({ do: "open" })
    tab.receive({ tick: "from before", ack: null })
    assert.equal(tab.requests.length, 1)
    assert.ok(tab.sender.sent)
  })

  test("a change waits for the screen that it is made upon, which is asked for before others", () => {
    const server = new Server()
    const requests = []
    const tab = new Tab(durable(), (request) => requests.push(request))
    tab.screens.set("c1", server.screen("c1"))
    tab.change({ do: "annotate", screen: "c2", fields: { comment: "x" } })
    assert.deepEqual([requests[0].change, requests[0].want[0]], [null, "c2"])
    tab.receive(server.answer(requests[0]))
    assert.equal(requests[1].change.version, 0)
  })

  test("images that are not there are asked for, three at once and not all the time", () => {
    const tab = new Tab(durable(), (request, from) => from.receive({ tick: request.tick }), ["c1", "c2", "c3", "c4"])
    for (const id of CASES) tab.screens.set(id, { id, marks: [] })
    tab.sender.send()
    assert.equal(tab.requests.length, 1)
    assert.deepEqual(tab.requests[0].plates, ["c1", "c2", "c3"])
    after(0.3)
    tab.sender.send()
    assert.equal(tab.requests.length, 1)
    after(3.6)
    assert.ok(tab.requests.length >= 8 && tab.requests.length <= 12, `${tab.requests.length} requests in four seconds`)
    tab.sender.close()
    const sent = tab.requests.length
    after(60)
    assert.equal(tab.requests.length, sent) // a page that was left asks for nothing
  })

  test("a page that was refused asks again only after a while, but sends what the reader does at once", () => {
    const refuse = ({ tick, change }, from) => {
      const ack = change && { key: change.key, status: "again", message: "Signed out." }
      from.receive({ tick, ack, problem: "Signed out." })
    }
    const tab = new Tab(durable(), refuse, ["c1"])
    for (const id of CASES) tab.screens.set(id, { id, marks: [] })
    tab.sender.send()
    after(REFUSED_FOR)
    assert.equal(tab.requests.length, 1)
    after(1)
    assert.equal(tab.requests.length, 2)
    tab.change({ do: "undo" })
    assert.equal(tab.requests.at(-1).change.do, "undo")
  })

  test("the same key pressed within the time of saving is no conflict", () => {
    const server = new Server()
    const waiting = []
    const tab = new Tab(durable(), (request) => waiting.push(request))
    const settleAll = () => {
      while (waiting.length) tab.receive(server.answer(waiting.pop()))
    }
    tab.change({ do: "mark", mark: error({ significant: true }) })
    settleAll()
    for (let press = 0; press < 3; press++) {
      const [mark] = tab.view().marks
      tab.change({ do: "mark", mark: error({ significant: !mark.value.significant }), ...nameOf(mark) })
    }
    settleAll()
    assert.equal(server.conflicts, 0)
    assert.deepEqual(tab.view().marks.map(({ value }) => value), [{ significant: false }])
  })

  test("another tab's change is a conflict, also for what was made upon it since", () => {
    const server = new Server()
    const waiting = []
    const [one, two] = [0, 1].map(() => new Tab(durable(), (request, from) => waiting.push([request, from])))
    const settleAll = () => {
      while (waiting.length) {
        const [request, from] = waiting.shift()
        from.receive(server.answer(request))
      }
    }
    one.change({ do: "mark", mark: error({ by: "one" }) })
    settleAll()
    two.sender.send()
    settleAll()
    const mark = two.view().marks[0]
    one.change({ do: "mark", mark: error({ by: "one again" }), ...nameOf(one.view().marks[0]) })
    settleAll()
    for (const by of ["two", "two again"]) two.change({ do: "mark", mark: error({ by }), ...nameOf(mark) })
    settleAll()
    assert.equal(server.conflicts, 2)
    assert.deepEqual(server.screen("c1").marks.map(({ value }) => value.by), ["one again"])
  })

  // A session of random acts, troubles and closed tabs.
  const values = ({ marks }) => marks.map(({ value }) => value.step).sort((a, b) => a - b)
  function session(seed) {
    const random = randomly(seed)
    const server = new Server()
    const storage = durable()
    let troubles = true
    const carry = (request, from) => {
      const luck = troubles ? random() : 1
      if (luck < 0.15) return // the request is lost
      if (luck < 0.25 && request.change) {
        const ack = { key: request.change.key, screen: request.change.screen, status: "again", message: "Busy." }
        return void setTimeout(() => from.receive({ tick: request.tick, ack }), 50)
      }
      const answer = server.answer(request)
      if (luck < 0.4) return // it was stored, and the answer is lost
      setTimeout(() => from.receive(answer), random() * 600)
    }
    let tab = new Tab(storage, carry)
    const made = []
    const wanted = new Map() // key of the change that made a mark -> its value
    let comment = ""
    const change = (fields, mark) => {
      const { key } = tab.change({ ...fields, ...(mark ? nameOf(mark) : {}) })
      made.push(key)
      const name = mark ? (mark.local ?? server.made.get(mark.slot)) : key
      if (fields.do === "mark") wanted.set(name, fields.mark.value.step)
      if (fields.do === "unmark") wanted.delete(name)
      if (fields.do === "annotate") ({ comment } = fields.fields)
    }
    for (let step = 0; step < 25; step++) {
      const { ready } = tab
      const { marks } = tab.view()
      const mark = marks[Math.floor(random() * marks.length)]
      const act = random()
      if (act < 0.85 && !ready) tab.sender.send()
      else if (act < 0.35 || (act < 0.7 && !mark)) change({ do: "mark", mark: error({ step }) })
      else if (act < 0.6) change({ do: "mark", mark: error({ step }) }, mark)
      else if (act < 0.7) change({ do: "unmark" }, mark)
      else if (act < 0.85) change({ do: "annotate", fields: { comment: `at ${step}` } })
      else {
        tab.close() // and opened again: only the browser's storage goes on
        tab = new Tab(storage, carry)
        tab.sender.send()
      }
      if (ready && act < 0.85) assert.deepEqual(values(tab.view()), [...wanted.values()].sort((a, b) => a - b), `seed ${seed}: shown`)
      after(random() * 3)
    }
    troubles = false
    for (let second = 0; second < 90 && (tab.outbox.first || tab.sender.sent); second++) {
      tab.sender.send()
      after(1)
    }
    assert.equal(tab.outbox.first, null, `seed ${seed}: something was never sent`)
    assert.deepEqual(server.log, made.filter((key) => server.acks.has(key)), `seed ${seed}: not in order, or twice`)
    assert.equal(server.conflicts, 0, `seed ${seed}: a conflict with oneself`)
    assert.deepEqual(values(server.screen("c1")), [...wanted.values()].sort((a, b) => a - b), `seed ${seed}: stored`)
    assert.equal(server.screen("c1").comment, comment, `seed ${seed}`)
    tab.close()
  }

  test("whatever is lost, late or closed, the server ends with what the reader saw, each change stored once and in order", () => {
    for (let seed = 1; seed <= 60; seed++) session(seed)
  })
})
