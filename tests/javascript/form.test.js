// A rubric of questions: what is asked where, what is answered, and what keys do.
import assert from "node:assert/strict"
import { describe, test } from "node:test"
import { answersTo, isAnswered, missingAnswers, nextOpen, restOf, rowsOf } from "../../dashboard/components/frontend/reading/form.js"
import { answerOthers, nextDisputed } from "../../dashboard/components/frontend/reading/answering.js"
import {
  answerRow, cannotJudge, clickedInForm, jump, moveInForm, moveRow, removeHere, rowHere, textHere,
} from "../../dashboard/components/frontend/reading/form_answers.js"
import { onTop, slotOf } from "../../dashboard/components/frontend/reading/settling.js"

function question(id, kind, of, more = {}) {
  return {
    id, kind, of, ask: `${id}?`, options: [], explained: {}, items: [], required: true, cannot_judge: false, key: "", when: null,
    finding: "", on: ["words"], tie: true, alone: [], rest: null, limit: 100, ...more,
  }
}
const SCORE = question("score", "scale", "report", { options: [[1, "agree"], [2, "minor"], [3, "major"]], cannot_judge: true, key: "r" })
const WHY = question("why", "text", "report", { required: false, when: { question: "score", answers: [2, 3], items: [] } })
const MARKS = question("errors", "mark", "report", { options: [["false", "false"], ["omitted", "left out"]], key: "e", on: ["words", "region"] })
const INSTEAD = question("instead", "replacement", "finding", { finding: "errors", required: false })
const HARM = question("harm", "choice", "finding", {
  finding: "errors", options: [["no", "No"], ["yes", "Yes"]], when: { question: "errors", answers: ["false"], items: [] },
})
const STATES = question("state", "choice", "image", {
  items: ["Edema", "Devices", "Nothing"], options: [["neg", "absent"], ["pos", "present"]],
  rest: { answer: "neg", nothing: "Nothing", nothing_answer: "pos", beside: ["Devices"] },
})
const FAULTS = question("faults", "choices", "image", { options: [["cut", "cut"], ["motion", "motion"], ["fine", "fine"]], alone: ["fine"] })
const BETTER = question("better", "preference", "case", { cannot_judge: true })
const WHY_BETTER = question("why", "choices", "case", {
  options: [["short", "short"]], when: { question: "better", answers: ["a report"], items: [] },
})
const EACH = question("clear", "choice", "sentence", { options: [["yes", "Yes"], ["no", "No"]] })

const REPORT = { name: "A", text: "Heart big. Lungs clear.", sentences: [[0, 10], [11, 23]] }
const OTHER = { name: "B", text: "Normal.", sentences: [[0, 7]] }

// A page with the reader's changes on top of an empty screen, as page.js has them.
function page(questions, { reports = [REPORT], disputed = [] } = {}) {
  const screen = { id: "s", reports, marks: [], disputed }
  const changes = []
  return {
    data: { open: true, questions }, kind: "answer", chosen: { report: 0, sentence: -2, words: null, mark: null }, changes, region: null,
    view: () => onTop(screen, changes, new Map()),
    change(fields) {
      changes.push({ screen: "s", key: `k${changes.length}`, ...fields })
      return changes.at(-1)
    },
    choose(what) {
      this.chosen = { ...this.chosen, ...what }
    },
    is: (mark, id) => mark.id === id,
    takeRegion() {
      const { region } = this
      this.region = null
      return region
    },
  }
}
const press = (onto, ...numbers) => numbers.forEach((number) => answerRow(onto, onto.view(), number - 1))
const given = (onto) => Object.fromEntries(onto.view().marks.map((mark) => [slotOf(mark), mark.value.answer]))
const slots = (onto) => rowsOf(onto.data.questions, onto.view()).map(({ slot }) => slot)

describe("what is asked", () => {
  test("report by report, and what hangs on another answer only with it", () => {
    const reading = page([SCORE, WHY], { reports: [REPORT, OTHER] })
    assert.deepEqual(slots(reading), ["answer/score/A/", "answer/score/B/"])
    press(reading, 2)
    assert.deepEqual(slots(reading), ["answer/score/A/", "answer/why/A/", "answer/score/B/"])
    moveRow(reading, -9)
    press(reading, 1)
    assert.deepEqual(slots(reading), ["answer/score/A/", "answer/score/B/"])
  })

  test("every sentence, every item, and one after another what a finding asks", () => {
    assert.deepEqual(slots(page([EACH])), ["answer/clear/A/0-10", "answer/clear/A/11-23"])
    assert.deepEqual(slots(page([STATES])), ["answer/state//Edema", "answer/state//Devices", "answer/state//Nothing"])
    const reading = page([MARKS, INSTEAD, HARM])
    press(reading, 1) // on the whole of the first sentence
    const [{ value }] = reading.view().marks
    assert.deepEqual(slots(reading), ["answer/errors/A/", `answer/instead/A/${value.id}`, `answer/harm/A/${value.id}`])
    assert.equal(rowHere(reading).question.id, "instead") // at once what should stand there instead
  })

  test("reasons are asked for a report that is preferred, not for none", () => {
    const reading = page([BETTER, WHY_BETTER], { reports: [REPORT, OTHER] })
    assert.deepEqual(answersTo(rowHere(reading), reading.view()).map(([name]) => name), ["A", "B", "tie"])
    press(reading, 3)
    assert.equal(slots(reading).length, 1)
    moveRow(reading, -9)
    cannotJudge(reading)
    assert.equal(slots(reading).length, 1)
    press(reading, 2)
    assert.deepEqual(slots(reading), ["answer/better//", "answer/why//"])
  })

  test("of a third reader only what is disputed, with the numbers that were counted", () => {
    const disputed = [
      { report: "A", question: "errors: omitted", words: "left out, how many", counts: [0, 2] },
      { report: "", question: "faults: cut", words: "cut", counts: [] },
      { report: "", question: "faults: motion", words: "motion", counts: [] },
    ]
    const reading = page([MARKS, SCORE, FAULTS], { disputed })
    assert.deepEqual(slots(reading), ["count/A/errors: omitted", "answer/faults//"])
    assert.equal(missingAnswers(reading.data.questions, reading.view()), "“left out, how many”, “faults?”")
    press(reading, 1)
    assert.deepEqual(reading.changes[0].mark, { kind: "count", report: "A", value: { question: "errors: omitted", count: 0 } })
    assert.equal(rowHere(reading).question.id, "faults") // the next dispute, without a key
    nextDisputed(reading)
    press(reading, 1)
    assert.equal(missingAnswers(reading.data.questions, reading.view()), "")
    answerOthers(reading)
    assert.equal(reading.changes.length, 2) // no key answers disputes together
  })
})

describe("answers", () => {
  test("one goes on to the next open question, the last stays", () => {
    const reading = page([SCORE, BETTER], { reports: [REPORT, OTHER] })
    press(reading, 1, 3, 1)
    assert.deepEqual(given(reading), { "answer/score/A/": 1, "answer/score/B/": 3, "answer/better//": "A" })
    assert.equal(rowHere(reading).slot, "answer/better//")
    press(reading, 9) // no such answer
    assert.equal(reading.changes.length, 3)
  })

  test("several stay on the question, in the file's order; what stands alone takes the others away", () => {
    const reading = page([FAULTS])
    press(reading, 2, 1)
    assert.deepEqual(given(reading), { "answer/faults//": ["cut", "motion"] })
    press(reading, 3)
    assert.deepEqual(given(reading), { "answer/faults//": ["fine"] })
    press(reading, 1)
    assert.deepEqual(given(reading), { "answer/faults//": ["cut"] })
  })

  test("cannot judge is an answer where it is offered", () => {
    const reading = page([{ ...SCORE, cannot_judge: false }])
    cannotJudge(reading)
    assert.equal(reading.changes.length, 0)
    reading.data.questions = [SCORE]
    cannotJudge(reading)
    assert.deepEqual(given(reading), { "answer/score/A/": "cannot judge" })
    assert.equal(missingAnswers(reading.data.questions, reading.view()), "")
  })

  test("a mark takes the words and the box; nothing to mark and marks exclude each other", () => {
    const reading = page([MARKS, SCORE])
    press(reading, 3)
    assert.deepEqual(given(reading), { "answer/errors/A/none": "none" })
    jump(reading, "e")
    moveInForm(reading, 1)
    reading.region = [0.1, 0.1, 0.5, 0.5]
    press(reading, 1)
    const [{ value }] = reading.view().marks
    assert.deepEqual([value.span, value.region, reading.region], [[11, 23], [0.1, 0.1, 0.5, 0.5], null])
    press(reading, 3)
    assert.deepEqual(given(reading), { "answer/errors/A/none": "none" })
  })

  test("two errors with what they ask take eight keys", () => {
    const reading = page([MARKS, HARM])
    press(reading, 1, 1) // false, without harm; back where errors are marked
    assert.equal(rowHere(reading).question.id, "errors")
    moveInForm(reading, 1)
    press(reading, 1, 2)
    assert.equal(missingAnswers(reading.data.questions, reading.view()), "")
    assert.equal(reading.view().marks.length, 4)
  })

  test("a mark that goes takes its answers along, and the keys stay in the report", () => {
    const reading = page([MARKS, HARM])
    press(reading, 1, 2)
    moveRow(reading, 1)
    removeHere(reading)
    assert.deepEqual([reading.view().marks, rowHere(reading).question.id], [[], "errors"])
  })

  test("one key answers the rest, and that there is nothing only where nothing is", () => {
    const reading = page([STATES])
    answerOthers(reading)
    assert.deepEqual(given(reading), { "answer/state//Edema": "neg", "answer/state//Devices": "neg", "answer/state//Nothing": "pos" })
    for (const [item, nothing] of [["Edema", "neg"], ["Devices", "pos"]]) {
      const found = Object.fromEntries(restOf(STATES, (name) => (name === item ? "pos" : undefined)))
      assert.deepEqual([found.Nothing, found[item]], [nothing, undefined], item)
    }
    assert.deepEqual(restOf(SCORE, () => undefined), [])
  })

  test("a letter goes to its question, again to the next report", () => {
    const reading = page([MARKS, SCORE], { reports: [REPORT, OTHER] })
    const to = (key) => {
      jump(reading, key)
      return rowHere(reading).slot
    }
    assert.deepEqual([to("r"), to("r"), to("r"), to("e")], ["answer/score/A/", "answer/score/B/", "answer/score/A/", "answer/errors/B/"])
  })

  test("a click on a sentence chooses what asks for it, a second one its word", () => {
    const sentences = page([SCORE, EACH])
    clickedInForm(sentences, 0, 1, () => null)
    assert.equal(rowHere(sentences).slot, "answer/clear/A/11-23")
    const marks = page([SCORE, MARKS])
    clickedInForm(marks, 0, 1, () => [1, 1])
    assert.deepEqual([rowHere(marks).question.id, marks.chosen.sentence, marks.chosen.words], ["errors", 1, null])
    clickedInForm(marks, 0, 1, () => [1, 1])
    press(marks, 1)
    assert.deepEqual(marks.view().marks[0].value.span, [17, 22])
    const neither = page([SCORE])
    clickedInForm(neither, 0, 1, () => null)
    assert.equal(rowHere(neither).slot, "answer/score/A/")
  })

  test("only what is written has a text", () => {
    const reading = page([SCORE, WHY])
    assert.equal(textHere(reading), null)
    press(reading, 2)
    assert.deepEqual([rowHere(reading).question.id, textHere(reading)], ["why", ""])
  })

  test("the next open question goes round only to what must be answered", () => {
    const reading = page([WHY, SCORE].map((each) => ({ ...each, when: null })))
    const rows = rowsOf(reading.data.questions, reading.view())
    assert.equal(nextOpen(rows, "answer/score/A/", []), null)
    assert.ok(!isAnswered(rows[0], []))
    assert.equal(nextOpen(rows, "answer/why/A/", []).slot, "answer/score/A/")
  })
})
