// The editor without a browser: what goes into the outbox, when it may be sent, and what may change the field.
import assert from "node:assert/strict"
import { beforeEach, describe, test } from "node:test"
import { Editor } from "../../dashboard/components/frontend/reading/editor.js"
import { Outbox } from "../../dashboard/components/frontend/reading/outbox.js"
import { onTop, settle } from "../../dashboard/components/frontend/reading/settling.js"
import { durable } from "./helpers.js"

const SLOT = "answer/report/A/"
const element = () => ({
  dataset: {}, hidden: false, textContent: "", title: "", style: {}, childElementCount: 0, children: [], append() {}, setAttribute() {}, removeAttribute() {},
  replaceChildren(...children) {
    this.children = children
    this.childElementCount = children.length
  },
  focus() {},
})

let page, editor, area, said, now
beforeEach(() => {
  now = 1000
  globalThis.document = { createElement: element }
  globalThis.matchMedia = () => ({ matches: false })
  performance.now = () => now
  said = []
  area = { ...element(), value: "", selectionStart: 0, selectionEnd: 0 }
  const parts = { textarea: area, ".other": element(), ".found": element() }
  const box = { ...element(), querySelector: (name) => parts[name] }
  const screen = { id: "s1", reports: [{ name: "A", text: "The draft." }], marks: [], findings: [], disputed: [], state: "pending", flagged: false }
  page = {
    $: (name) => (name === ".editor" ? box : element()), at: "s1", kind: "answer", clock: { touch() {}, active: 0 }, say: (words) => said.push(words),
    screens: new Map([["s1", screen]]), outbox: new Outbox("session", "anna", { storage: durable(), now: () => 1e6 }), sender: { send() {}, unsaved: "" },
    data: { open: true, places: [["s1", "pending", false]], questions: [{ id: "report", kind: "edit", limit: 100, of: "report" }], title: "T", seconds: 0, seconds_left: null, sitting: "" },
    view: () => onTop(page.screens.get("s1"), page.outbox.changes, page.outbox.slots), draw: () => editor.draw(page.view()), focus() {}, go() {},
    stateOf: () => ["pending", false],
  }
  editor = page.editor = new Editor(page)
  page.draw()
})

function type(text) {
  area.value = text
  editor.input()
}

// The server has stored the first change, as it is.
function stored(version) {
  const [change] = page.outbox.changes
  settle(change, page.screens.get("s1"), page.outbox.slots)
  page.outbox.shift({ status: "saved", slot: SLOT, version })
  const mark = { slot: SLOT, version, kind: "answer", report: "A", value: { ...change.mark.value } }
  page.screens.set("s1", { ...page.screens.get("s1"), marks: [mark] })
  return change
}

describe("the editor", () => {
  test("shows the draft, and keeps each key in one change until it may be sent", () => {
    assert.equal(area.value, "The draft.")
    for (const text of ["The draft. N", "The draft. No", "The draft. Now"]) {
      type(text)
      now += 100
    }
    const { changes } = page.outbox
    assert.equal(changes.length, 1)
    assert.equal(changes[0].mark.value.answer, "The draft. Now")
    assert.deepEqual([changes[0].bout.inserted, changes[0].bout.seconds], [4, 0.2])
    assert.ok(editor.holds(changes[0]))
    now += 400
    assert.ok(!editor.holds(changes[0]))
    clearTimeout(editor.timer)
  })

  test("sends at least every two seconds, however fast one types", () => {
    for (let key = 0; key < 21; key++) {
      type(`The draft. ${"x".repeat(key + 1)}`)
      now += 100
    }
    assert.ok(!editor.holds(page.outbox.changes[0]))
    clearTimeout(editor.timer)
  })

  test("what is typed while a text is sent is a change of its own, upon the version that is stored then", () => {
    type("One")
    settle(page.outbox.changes[0], page.screens.get("s1"), page.outbox.slots)
    type("One two")
    assert.equal(page.outbox.changes.length, 2)
    stored(1)
    page.draw()
    assert.equal(area.value, "One two") // the field is not set back to what is stored
    const [second] = page.outbox.changes
    assert.equal(settle(second, page.screens.get("s1"), page.outbox.slots), "send")
    assert.deepEqual([second.slot, second.version], [SLOT, 1])
    clearTimeout(editor.timer)
  })

  test("another tab's text comes into the field only while nothing typed here waits", () => {
    type("One")
    stored(1)
    page.screens.get("s1").marks[0] = { ...page.screens.get("s1").marks[0], version: 2, value: { question: "report", answer: "Theirs" } }
    page.draw()
    assert.equal(area.value, "Theirs")
    clearTimeout(editor.timer)
  })

  test("a text that another tab overtook stays in the field, and the reader chooses", () => {
    type("Mine")
    const change = page.outbox.shift()
    const mark = { slot: SLOT, version: 1, kind: "answer", report: "A", value: { question: "report", answer: "Theirs" } }
    page.screens.set("s1", { ...page.screens.get("s1"), marks: [mark] })
    editor.notTaken(change)
    page.draw()
    assert.equal(area.value, "Mine")
    assert.ok(area.readOnly)
    assert.ok(!editor.finish(page.view()))
    assert.match(said.at(-1), /Choose first/)
    editor.choose(true)
    assert.ok(!area.readOnly)
    const [mine] = page.outbox.changes
    assert.deepEqual([mine.mark.value.answer, mine.slot, mine.version], ["Mine", SLOT, 1])
    assert.ok(!editor.holds(mine))
    page.outbox.shift()
    editor.notTaken({ ...mine })
    editor.choose(false)
    assert.equal(area.value, "Theirs")
    assert.equal(page.outbox.changes.length, 0)
  })

  test("what the server refuses stays to be copied", () => {
    type("Mine")
    editor.notTaken(page.outbox.shift(), "This session is closed.")
    page.draw()
    assert.equal(area.value, "Mine")
    editor.choose(true) // there is nothing to send again
    assert.equal(page.outbox.changes.length, 0)
    editor.choose(false)
    assert.equal(area.value, "The draft.")
  })

  test("a draft that is left as it is is a report; an empty one is none", () => {
    assert.ok(editor.finish(page.view()))
    assert.deepEqual([page.outbox.changes[0].mark.value.answer, page.outbox.changes[0].bout], ["The draft.", null])
    page.outbox.shift()
    page.screens.get("s1").reports[0].text = ""
    assert.ok(editor.finish(page.view()))
    assert.equal(page.outbox.changes.length, 0)
    clearTimeout(editor.timer)
  })

  test("too much is not pasted, and halves of characters and zeros are no text", () => {
    let prevented = false
    const paste = (text) => editor.paste({ clipboardData: { getData: () => text }, preventDefault: () => (prevented = true) })
    paste("x".repeat(1_048_576))
    assert.ok(prevented)
    assert.equal(said.at(-1), "Nothing was pasted: it has 1,048,576 characters, and a report has at most 100.")
    prevented = false
    paste("<b>fine</b>")
    assert.ok(!prevented)
    type("a\0b\ud800")
    assert.equal(page.outbox.changes[0].mark.value.answer, "ab\ufffd")
    clearTimeout(editor.timer)
  })
})
