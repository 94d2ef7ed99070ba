// What a case asks, how long it took, and what keys mean.
import assert from "node:assert/strict"
import { describe, test } from "node:test"
import { KEYS, digitOf, pressed } from "../../dashboard/components/frontend/reading/keys.js"
import { firstChoice, isSettled, missing, observationsOf } from "../../dashboard/components/frontend/reading/questions.js"
import { ReadingClock, minutes } from "../../dashboard/components/frontend/reading/reading_clock.js"
import { pace } from "../../dashboard/components/frontend/reading/top.js"

const OBSERVATIONS = ["No Finding", "Cardiomegaly", "Edema", "Pneumonia", "Fracture", "Support Devices"]
const REPORTS = [{ name: "A", sentences: [[0, 5], [6, 9]] }, { name: "B", sentences: [[0, 7]] }]
const label = (observation) => ({ report: "", value: { observation, state: "absent" } })
const judged = (report, span) => ({ report, value: { support: "supports", span } })
const asks = (kind, { marks = [], disputed = [] }) => missing(kind, { marks, disputed, reports: REPORTS }, OBSERVATIONS)

describe("what is not answered yet", () => {
  test("a preference is one answer", () => {
    assert.equal(asks("preference", {}), "which report you prefer")
    assert.equal(asks("preference", { marks: [{ value: { prefer: "tie" } }] }), "")
  })

  test("all observations, by name when few are left; of a third reader the disputed", () => {
    assert.equal(asks("label", {}), "6 observations")
    assert.equal(asks("label", { marks: OBSERVATIONS.slice(0, 4).map(label) }), "Fracture, Support Devices")
    assert.equal(asks("label", { marks: OBSERVATIONS.map(label) }), "")
    const disputed = [{ question: "Edema" }, { question: "Fracture" }]
    assert.equal(asks("label", { disputed, marks: [label("Edema"), label("Pneumonia")] }), "Fracture")
  })

  test("a sentence of each report at least; of a third reader each disputed sentence", () => {
    assert.equal(asks("helpfulness", {}), "report A, report B")
    assert.equal(asks("helpfulness", { marks: [judged("A", [6, 9])] }), "report B")
    const disputed = [{ report: "A", question: "0-5", words: "Heart" }, { report: "B", question: "0-7", words: "Lungs" }]
    assert.equal(asks("helpfulness", { disputed, marks: [judged("A", [6, 9]), judged("B", [0, 7])] }), "Heart")
  })

  test("a report may have no error; a third reader answers each disputed number, by a number or by marking", () => {
    assert.equal(asks("error", {}), "")
    const disputed = ["omission", "wrong location"].map((question) => ({ report: "A", question, words: question, counts: [0, 1] }))
    assert.equal(asks("error", { disputed }), "omission, wrong location")
    const count = { kind: "count", report: "A", value: { question: "omission", count: 0 } }
    const marked = { kind: "error", report: "A", value: { error: "wrong location", significant: true } }
    assert.equal(asks("error", { disputed, marks: [count] }), "wrong location")
    assert.equal(asks("error", { disputed, marks: [count, { ...marked, report: "B" }] }), "wrong location")
    assert.equal(asks("error", { disputed, marks: [count, marked] }), "")
    assert.ok(!isSettled(disputed[0], "error", []))
  })
})

test("a case opens at its first question, a third reader's at the first that is disputed", () => {
  const chosen = (kind, disputed) => firstChoice(kind, { disputed, reports: REPORTS }, OBSERVATIONS)
  assert.deepEqual(chosen("label", []), { report: 0, sentence: 0, words: null, row: 0, mark: null })
  assert.equal(chosen("label", [{ question: "Edema" }, { question: "Fracture" }]).row, 0) // the disputed come first
  assert.deepEqual(
    observationsOf(OBSERVATIONS, { disputed: [{ question: "Fracture" }, { question: "Edema" }] }),
    ["Edema", "Fracture", "No Finding", "Cardiomegaly", "Pneumonia", "Support Devices"])
  assert.equal(chosen("error", [{ report: "A", question: "omission" }]).dispute, 0)
  const { report, sentence } = chosen("helpfulness", [{ report: "A", question: "6-9" }])
  assert.deepEqual([report, sentence], [0, 1])
  assert.equal(firstChoice("label", null, OBSERVATIONS).row, 0) // the case is not here yet
})

test("every kind of rubric has keys that the page explains", () => {
  for (const kind of ["error", "preference", "helpfulness", "label", "answer"]) assert.ok(KEYS[kind].length, kind)
})

describe("time", () => {
  const clock = (script) => {
    let at = 0
    const watch = new ReadingClock(() => at)
    const pass = (seconds, isReading = true) => {
      at += seconds * 1000
      watch.count(isReading)
    }
    script(watch, pass)
    return Math.round(watch.active * 1000) / 1000
  }

  test("seconds count while something is read, and not while another window is in front", () => {
    assert.equal(clock((_, pass) => [1, 2, 3].forEach((seconds) => pass(seconds))), 6)
    assert.equal(clock((_, pass) => [true, false, true].forEach((isReading) => pass(2, isReading))), 4)
  })

  test("after a minute without a key or a move it stands still, until the next", () => {
    const second = (_, pass) => Array.from({ length: 90 }).forEach(() => pass(1))
    assert.equal(clock(second), 59)
    assert.equal(clock((watch, pass) => {
      second(watch, pass)
      watch.touch()
      pass(1)
    }), 60)
  })

  test("a computer that slept did not read", () => assert.equal(clock((_, pass) => pass(40)), 5))

  test("what passed before a case was opened is skipped, and what was told is not told again", () => {
    let at = 0
    const watch = new ReadingClock(() => at)
    at = 3000
    watch.skip()
    at = 4260
    watch.count(true)
    assert.equal(watch.take(), 1.3)
    assert.equal(watch.take(), 0)
  })

  test("minutes and seconds", () => {
    assert.deepEqual([0, 59.6, 61, 3599, -4].map(minutes), ["0:00", "1:00", "1:01", "59:59", "0:00"])
  })

  test("the pace is told once a case is read, the rest of the time always", () => {
    assert.equal(pace({ open: true, usual: null, seconds_left: null }, 9, 0, 10), "")
    assert.equal(pace({ open: true, usual: 30, seconds_left: null }, 10, 2, 10), "30 s a case · about 4 min left")
    assert.equal(pace({ open: true, usual: 31, seconds_left: null }, 10, 2, 10), "31 s a case · about 5 min left")
    assert.equal(pace({ open: true, usual: 0.3, seconds_left: null }, 0, 2, 10), "about 1 min left") // never 0 s a case
    assert.equal(pace({ open: true, usual: 7, seconds_left: 100 }, 10, 10, 10), "7 s a case · 1:30 of your time left")
    assert.equal(pace({ open: false, usual: 7, seconds_left: 100 }, 0, 3, 10), "closed: nothing can be changed")
  })
})

describe("keys", () => {
  globalThis.HTMLElement ??= class {}

  // A page that notes what it is told to do.
  function page(more = {}) {
    const done = []
    const note = (name) => (...words) => done.push([name, ...words].join(" "))
    const area = new globalThis.HTMLElement()
    return {
      done, area, data: { open: true }, root: { isConnected: true, contains: (target) => target !== "elsewhere" }, $: () => area,
      act: note("act"), giveImage: note("image"), over: note("over"), say: note("say"), typed: note("typed"), untyped: note("untyped"),
      useMine: note("mine"), view: () => null, viewer: { act: note("viewer"), key: ({ key }) => done.push(`viewer key ${key}`) }, ...more,
    }
  }

  function press(onto, key, more = {}) {
    const event = {
      key, target: "page", prevented: false, stopped: false, composedPath: () => [more.target ?? "page"],
      preventDefault: () => (event.prevented = true), stopPropagation: () => (event.stopped = true),
      stopImmediatePropagation: () => (event.stopped = true), ...more,
    }
    pressed(onto, event)
    return event
  }

  test("digits are told by the key's place, also on a French keyboard and a number pad", () => {
    assert.deepEqual(
      [{ key: "1", code: "Digit1" }, { key: "&", code: "Digit1" }, { key: "4", code: "Numpad4" }, { key: "7" }].map(digitOf), [1, 1, 4, 7])
    for (const other of [{ key: "0", code: "Digit0" }, { key: "q", code: "KeyA" }, { key: "F1", code: "F1" }]) assert.equal(digitOf(other), null)
  })

  test("letters are the page's in either case, and with Ctrl the browser's", () => {
    const reading = page()
    for (const key of ["n", "N", "?", "+", "0", "v"]) assert.ok(press(reading, key).prevented, key)
    assert.ok(!press(reading, "n", { ctrlKey: true }).prevented)
    assert.ok(!press(reading, "F5").prevented)
    assert.deepEqual(reading.done, ["act next", "act next", "act help", "viewer in", "viewer reset", "image true"])
  })

  test("while something is typed letters are letters, and Streamlit does not get them", () => {
    const reading = page({ typing: "comment" })
    const typing = { target: reading.area }
    const letter = press(reading, "c", typing)
    assert.deepEqual([letter.prevented, letter.stopped], [false, true])
    press(reading, "Enter", typing)
    press(reading, "Enter", { ...typing, ctrlKey: true })
    press(reading, "Escape", typing)
    reading.typing = "skip"
    press(reading, "Enter", { ...typing, shiftKey: true })
    press(reading, "Enter", typing)
    assert.deepEqual(reading.done, ["typed true", "untyped", "typed true"])
  })

  test("over the page lies a sheet: only its own keys", () => {
    const sheet = page({ overs: "end" })
    for (const key of ["n", "1", "g"]) press(sheet, key)
    assert.deepEqual(sheet.done, ["over ", "act first"])
    const help = page({ overs: "help" })
    for (const key of ["g", "Enter"]) press(help, key)
    assert.deepEqual(help.done, ["over "])
  })

  test("keys that were given to the image are the viewer's until Escape; Tab goes on", () => {
    const reading = page({ onImage: true })
    for (const key of ["1", "i", "Tab", "Escape"]) press(reading, key)
    assert.deepEqual(reading.done, ["viewer key 1", "viewer key i", "image false"])
  })

  test("a report with two errors takes at most eight keys", () => {
    const sentences = [[0, 5], [6, 11], [12, 17]]
    const view = { reports: [{ name: "A", text: "Aaaa. Bbbb. Cccc.", sentences }], marks: [], disputed: [] }
    const errors = ["false finding", "omission", "wrong location"].map((name) => [name, ""])
    const reading = page({
      kind: "error", data: { open: true, questions: [] }, choices: { errors }, chosen: firstChoice("error", view, []), view: () => view,
      choose: (what) => Object.assign(reading.chosen, what),
      change: (fields) => {
        view.marks.push(fields.mark)
        return { key: "k" }
      },
    })
    const keys = ["1", "ArrowDown", "ArrowDown", "3", "n"]
    for (const key of keys) press(reading, key)
    assert.deepEqual(view.marks.map(({ value }) => [value.error, value.span]), [["false finding", [0, 5]], ["wrong location", [12, 17]]])
    assert.deepEqual(reading.done, ["act next"])
    assert.ok(keys.length <= 8)
  })

  test("Y is an answer only to a conflict", () => {
    const [calm, torn] = [page(), page({ conflict: {} })]
    for (const each of [calm, torn]) press(each, "y")
    assert.deepEqual([calm.done, torn.done], [[], ["mine"]])
  })
})
