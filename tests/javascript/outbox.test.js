// The outbox and what is made of it: order, what is still there after a reload, settling, what is shown meanwhile.
import assert from "node:assert/strict"
import { describe, test } from "node:test"
import { Outbox, fresh } from "../../dashboard/components/frontend/reading/outbox.js"
import { nameOf, onTop, settle, slotOf } from "../../dashboard/components/frontend/reading/settling.js"
import { Memory, browserStorage } from "../../dashboard/components/frontend/reading/storage.js"
import { durable } from "./helpers.js"

const open = (storage, { reader = "anna", now = () => 1e6 } = {}) => new Outbox("s1", reader, { storage, now })
const what = ({ changes }) => changes.map((change) => change.what)
const error = (value, report = "A") => ({ kind: "error", report, value })

describe("an outbox in the browser's storage", () => {
  test("keys are 32 hexadecimal digits, each another", () => {
    const keys = Array.from({ length: 1000 }, fresh)
    assert.equal(new Set(keys).size, 1000)
    for (const key of keys) assert.match(key, /^[0-9a-f]{32}$/)
  })

  test("changes are done with in the order in which they were made", () => {
    const outbox = open(durable())
    for (const each of ["a", "b", "c"]) outbox.add({ what: each })
    assert.equal(outbox.first.what, "a")
    assert.equal(outbox.shift({ status: "saved" }).what, "a")
    assert.deepEqual(what(outbox), ["b", "c"])
  })

  test("what a closed tab left is taken over in its order with its keys, once, by one tab", () => {
    const storage = durable()
    const closed = open(storage)
    for (const each of ["a", "b", "c"]) closed.add({ what: each })
    closed.shift({ status: "saved" })
    closed.keep(0) // as when a page is hidden for good
    const next = open(storage)
    assert.deepEqual(next.changes, closed.changes)
    assert.deepEqual(what(open(storage)), [])
  })

  test("what is taken over comes after what the tab itself has waiting", () => {
    const storage = durable()
    const [here, closed] = [open(storage), open(storage)]
    here.add({ what: "mine" })
    for (const each of ["a", "b"]) closed.add({ what: each })
    closed.keep(0)
    here.adopt()
    assert.deepEqual(what(here), ["mine", "a", "b"])
  })

  test("a tab that is alive keeps its changes, one that fell silent is taken over later", () => {
    const storage = durable()
    let at = 1e6
    const now = () => at
    const one = open(storage, { now })
    one.add({ what: "a" })
    const two = open(storage, { now })
    at += 5000
    one.keep()
    two.adopt()
    at += 5000
    two.adopt()
    assert.deepEqual(what(two), [])
    at += 1001
    two.adopt()
    assert.deepEqual(what(two), ["a"])
    // It was only slow, as a tab in the background may be: the same change is not taken twice.
    one.keep()
    at += 6001
    two.adopt()
    assert.deepEqual(what(two), ["a"])
  })

  test("nothing of another reader or session is taken, also if a name begins like another and has a slash", () => {
    const storage = durable()
    for (const [session, reader] of [["s1", "boris"], ["s2", "anna"], ["s1", "anna/b"], ["s1", "ann"]]) {
      const other = new Outbox(session, reader, { storage, now: () => 1e6 })
      other.add({ what: reader })
      other.keep(0)
    }
    assert.deepEqual(what(open(storage)), [])
    assert.deepEqual(what(open(storage, { reader: "anna/b" })), ["anna/b"])
  })

  test("what cannot be read stays where it is and does not stop the page", () => {
    const storage = durable()
    const names = ["{", "null", '{"at": 0}'].map((text) => {
      const name = `cxr-lens-outbox/s1/anna/${fresh()}`
      storage.setItem(name, text)
      return name
    })
    const outbox = open(storage)
    outbox.add({ what: "a" })
    assert.deepEqual(what(outbox), ["a"])
    for (const name of names) assert.ok(storage.getItem(name))
  })

  test("where storage is full or forbidden changes are in memory, and the outbox says that they would not survive", () => {
    const full = durable()
    full.setItem = () => {
      throw new Error("QuotaExceededError")
    }
    for (const outbox of [open(full), open(new Memory())]) {
      assert.ok(outbox.survives) // nothing waits
      outbox.add({ what: "a" })
      assert.deepEqual(what(outbox), ["a"])
      assert.ok(!outbox.survives)
    }
    const kept = open(durable())
    kept.add({ what: "a" })
    assert.ok(kept.survives)
  })

  test("a browser that forbids storage gives one that forgets", () => {
    Object.defineProperty(globalThis, "forbidden", {
      configurable: true,
      get() {
        throw new Error("SecurityError")
      },
    })
    try {
      assert.ok(browserStorage("forbidden").forgets)
      assert.ok(browserStorage("there is none").forgets)
    } finally {
      delete globalThis.forbidden
    }
  })

  test("an empty outbox leaves nothing behind", () => {
    const storage = durable()
    const outbox = open(storage)
    outbox.add({ what: "a" })
    assert.equal(storage.length, 1)
    outbox.shift({ status: "saved" })
    assert.equal(storage.length, 0)
  })
})

describe("settling", () => {
  const screen = {
    id: "c1", version: 7, state: "pending", flagged: false, comment: "",
    marks: [{ slot: "error/A/1", version: 3, ...error({ error: "omission", significant: true }) }],
  }
  const slots = new Map()

  test("a new mark has no slot and version 0, one that was seen the version as the reader saw it", () => {
    const made = { do: "mark", screen: "c1", mark: error({}) }
    assert.equal(settle(made, screen, slots), "send")
    assert.deepEqual([made.slot, made.version], ["", 0])
    const seen = { do: "mark", screen: "c1", slot: "error/A/1", version: 2, mark: error({}) }
    assert.equal(settle(seen, screen, slots), "send")
    assert.equal(seen.version, 2) // not 3: the server will say that another tab was there
  })

  test("a mark that is gone is made anew", () => {
    const change = { do: "mark", screen: "c1", slot: "error/A/9", version: 5, mark: error({}) }
    assert.equal(settle(change, screen, slots), "send")
    assert.deepEqual([change.slot, change.version], ["", 0])
  })

  test("a change to one's own unsaved mark takes slot and version when they are known", () => {
    const change = { do: "mark", screen: "c1", of: "k1", mark: error({}) }
    assert.equal(settle(change, screen, new Map([["k1", "error/A/1"]])), "send")
    assert.deepEqual([change.slot, change.version], ["error/A/1", 3])
  })

  test("what was settled stays, whatever the server knows by then", () => {
    const change = { do: "annotate", screen: "c1", fields: { flagged: true } }
    settle(change, screen, slots)
    assert.equal(change.version, 7)
    settle(change, { ...screen, version: 9 }, slots)
    assert.equal(change.version, 7)
  })

  test("a screen that is not here is fetched first, but for what needs none", () => {
    for (const change of [{ do: "mark" }, { do: "unmark" }, { do: "annotate" }]) {
      assert.equal(settle(change, undefined, slots), "fetch")
      assert.ok(!change.settled)
    }
    for (const change of [{ do: "open" }, { do: "time" }, { do: "undo" }]) assert.equal(settle(change, undefined, slots), "send")
  })

  test("removing what is gone is dropped", () => {
    assert.equal(settle({ do: "unmark", slot: "error/A/9" }, screen, slots), "drop")
    assert.equal(settle({ do: "unmark", slot: "error/A/1", version: 3 }, screen, slots), "send")
  })
})

describe("changes upon one another", () => {
  test("what was made upon a mark goes on with its slot, in the tab that takes over too", () => {
    const storage = durable()
    const tab = open(storage)
    const made = tab.add({ do: "mark", screen: "c1", mark: error({}) })
    tab.add({ do: "unmark", screen: "c1", of: made.key })
    tab.shift({ status: "saved", slot: "error/A/5", version: 1 })
    tab.keep(0)
    const next = open(storage)
    const screen = { id: "c1", marks: [{ slot: "error/A/5", version: 1, ...error({}) }] }
    assert.equal(settle(next.first, screen, next.slots), "send")
    assert.deepEqual([next.first.slot, next.first.version], ["error/A/5", 1])
  })

  test("a second key within the time of saving is no conflict with the first", () => {
    const outbox = open(durable())
    for (let press = 0; press < 3; press++) outbox.add({ do: "mark", screen: "c1", slot: "error/A/1", version: 3 })
    outbox.add({ do: "mark", screen: "c1", slot: "error/A/2", version: 3 })
    outbox.shift({ status: "saved", slot: "error/A/1", version: 4 })
    assert.deepEqual(outbox.changes.map(({ version }) => version), [4, 4, 3])
    outbox.shift({ status: "saved", slot: "error/A/1", version: 5 })
    assert.deepEqual(outbox.changes.map(({ version }) => version), [5, 3])
  })

  test("after a real conflict what was made upon it is a conflict too", () => {
    const outbox = open(durable())
    for (let press = 0; press < 2; press++) outbox.add({ do: "mark", screen: "c1", slot: "error/A/1", version: 3 })
    outbox.shift({ status: "conflict" })
    assert.equal(outbox.first.version, 3)
  })

  test("after an undo a mark is changed as it then is", () => {
    const outbox = open(durable())
    outbox.add({ do: "undo", screen: "c1" })
    for (const screen of ["c1", "c2"]) outbox.add({ do: "mark", screen, slot: "error/A/1", version: 3 })
    outbox.shift({ status: "saved" })
    assert.deepEqual(outbox.changes.map(({ version }) => version), [undefined, 3])
  })
})

describe("what is shown", () => {
  const stored = {
    id: "c1", state: "pending", comment: "",
    marks: [
      { slot: "error/B/1", version: 1, ...error({ error: "omission" }, "B") },
      { slot: "error/A/2", version: 1, ...error({ error: "wrong location", span: [30, 35] }) },
    ],
  }
  const shown = (changes, slots = new Map(), screen = stored) => onTop(screen, changes, slots)
  const ids = (view) => view.marks.map(({ id }) => id)

  test("marks are in the order of the text, those of a whole report last", () => {
    const changes = [
      { key: "k1", screen: "c1", do: "mark", mark: error({ error: "omission" }) },
      { key: "k2", screen: "c1", do: "mark", mark: error({ error: "false finding", span: [3, 9] }) },
      { key: "k3", screen: "c1", do: "mark", mark: error({ error: "false finding" }) },
    ]
    assert.deepEqual(ids(shown(changes)), ["k2", "error/A/2", "k1", "k3", "error/B/1"])
  })

  test("changes are shown at once and only on their case; what the server knows is left as it is", () => {
    const before = structuredClone(stored)
    const view = shown([
      { key: "k1", screen: "c1", do: "mark", slot: "error/A/2", mark: error({ error: "wrong severity", span: [30, 35] }) },
      { key: "k2", screen: "c1", do: "unmark", slot: "error/B/1" },
      { key: "k3", screen: "c1", do: "annotate", fields: { state: "done", comment: "x" } },
      { key: "k4", screen: "c2", do: "annotate", fields: { comment: "elsewhere" } },
    ])
    assert.deepEqual(view.marks.map(({ value }) => value.error), ["wrong severity"])
    assert.deepEqual([view.state, view.comment], ["done", "x"])
    assert.deepEqual(nameOf(view.marks[0]), { slot: "error/A/2", version: 1 })
    assert.deepEqual(stored, before)
  })

  test("a mark that is made, changed and removed before it is saved is one mark, then none", () => {
    const changes = [
      { key: "k1", screen: "c1", do: "mark", mark: error({ error: "omission", significant: true }) },
      { key: "k2", screen: "c1", do: "mark", of: "k1", mark: error({ error: "omission", significant: false }) },
    ]
    const empty = { ...stored, marks: [] }
    const view = shown(changes, new Map(), empty)
    assert.equal(view.marks.length, 1)
    assert.equal(view.marks[0].value.significant, false)
    assert.deepEqual(nameOf(view.marks[0]), { of: "k1" })
    assert.deepEqual(ids(shown([...changes, { key: "k3", screen: "c1", do: "unmark", of: "k1" }], new Map(), empty)), [])
    // Saved meanwhile: its slot is known.
    const saved = { ...stored, marks: [{ slot: "error/A/9", version: 1, ...error({ significant: true }) }] }
    assert.deepEqual(ids(shown(changes.slice(1), new Map([["k1", "error/A/9"]]), saved)), ["error/A/9"])
  })

  test("an answer that was sent again after it was stored is shown once", () => {
    const mark = { kind: "label", report: "", value: { observation: "Edema", state: "present" } }
    assert.equal(slotOf(mark), "label/Edema")
    const screen = { ...stored, marks: [{ slot: "label/Edema", version: 1, ...mark }] }
    assert.deepEqual(ids(shown([{ key: "k1", screen: "c1", do: "mark", mark }], new Map(), screen)), ["label/Edema"])
  })

  test("a question with one answer has one slot, errors have as many as are marked", () => {
    assert.equal(slotOf({ kind: "preference" }), "preference")
    assert.equal(slotOf({ kind: "helpfulness", report: "A", value: { span: [0, 12] } }), "helpfulness/A/0-12")
    assert.equal(slotOf(error({})), "")
  })
})
