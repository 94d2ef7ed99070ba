// What a reader's answers and choices change on the page.
import { restOf } from "./form.js"
import { answerRest, answerRow, chooseRow, clickedInForm, formRows, goToOpen, moveInForm, removeHere, rowHere } from "./form_answers.js"
import { put } from "./putting.js"
import { isSettled, observationsOf } from "./questions.js"
import { nameOf, slotOf } from "./settling.js"
import { chosenByClick, chosenByKey, spanOf, stepped, stopsOf, wordsOf } from "./words.js"

const PREFER = ["first", "second", "tie"]

// The answer of a number, from 1.
export function answer(page, number) {
  const view = page.view()
  if (!view || !page.data.open) return
  if (page.chosen.dispute !== undefined && page.chosen.dispute !== null) return settleCount(page, view, number - 1)
  const answers = { error: markError, preference: prefer, helpfulness: judge, label: labelRow, answer: answerRow }
  answers[page.kind](page, view, number - 1)
}

// A third reader's number, of what readers counted differently; then to the next that has none.
export function settleCount(page, view, index, dispute = page.chosen.dispute) {
  const { report, question, counts } = view.disputed[dispute]
  if (counts[index] === undefined) return
  put(page, view, { kind: "count", report, value: { question, count: counts[index] } })
  page.choose({ dispute })
  nextDisputed(page)
}

// To the next question that a third reader has not settled.
export function nextDisputed(page) {
  const view = page.view()
  if (!view?.disputed.length) return
  if (page.kind === "answer") return goToOpen(page)
  const rows = view.disputed.map((each, index) => [each, index])
  const at = page.kind === "error" ? page.chosen.dispute ?? -1 : -1
  const found = [...rows.slice(at + 1), ...rows.slice(0, at + 1)].find(([each]) => !isSettled(each, page.kind, view.marks))
  if (page.kind === "error") return page.choose({ dispute: found ? found[1] : null })
  if (!found) return
  const [{ report: name, question }] = found
  if (page.kind === "label") return page.choose({ row: observationsOf(page.choices.observations, view).indexOf(question) })
  const report = Math.max(view.reports.findIndex((each) => each.name === name), 0)
  const sentence = view.reports[report].sentences.findIndex((span) => span.join("-") === question)
  page.choose({ report, sentence: Math.max(sentence, 0), words: null, mark: null })
}

function markError(page, view, index) {
  const kind = page.choices.errors[index]
  const report = view.reports[page.chosen.report]
  if (!kind || !report) return
  const sentence = report.sentences[page.chosen.sentence]
  const value = { error: kind[0], significant: true }
  if (sentence) value.span = spanOf(sentence, wordsOf(report.text, sentence), page.chosen.words)
  if (page.region) value.region = page.takeRegion()
  const made = page.change({ do: "mark", mark: { kind: "error", report: report.name, value } })
  page.choose({ mark: made.key })
}

function prefer(page, view, index) {
  if (PREFER[index]) put(page, view, { kind: "preference", report: "", value: { prefer: PREFER[index] } })
}

// Place of the preferred one of two reports; 2 is no difference, -1 no answer.
export function preferred(view) {
  return PREFER.indexOf(view.marks[0]?.value.prefer)
}

function judge(page, view, index) {
  const support = page.choices.support[index]
  const { report, sentence } = sentenceHere(page, view)
  if (!support || !sentence) return
  put(page, view, { kind: "helpfulness", report: report.name, value: { support, span: [...sentence] } })
  move(page, 1)
}

// The chosen sentence and its report.
export function sentenceHere({ chosen }, view) {
  const report = view.reports[chosen.report]
  return { report, sentence: report?.sentences[Math.max(chosen.sentence, 0)] }
}

function labelRow(page, view, index) {
  const state = page.choices.states[index]
  const observation = observationsOf(page.choices.observations, view)[page.chosen.row]
  if (!state) return
  label(page, view, observation, state[0])
  if (view.disputed.length) nextDisputed(page)
  else move(page, 1)
}

function label(page, view, observation, state) {
  put(page, view, { kind: "label", report: "", value: { observation, state } })
}

// One key for all that has no answer yet, as absent; a third reader answers each dispute for itself.
export function answerOthers(page) {
  const view = page.view()
  if (page.kind === "answer") return answerRest(page)
  if (page.kind !== "label" || !view || !page.data.open || view.disputed.length) return
  const stateOf = (name) => view.marks.find(({ value }) => value.observation === name)?.value.state
  for (const [name, state] of restOf(page.data.questions[0], stateOf)) label(page, page.view(), name, state)
}

// To the question whose answer was refused.
export function backTo(page, { kind, value, ...mark }) {
  if (kind === "answer") {
    const slot = slotOf({ kind, value, ...mark })
    return chooseRow(page, formRows(page).find((row) => row.slot === slot))
  }
  if (kind === "label") page.choose({ row: observationsOf(page.choices.observations, page.view()).indexOf(value.observation) })
}

export function significance(page, id = page.chosen.mark) {
  const mark = page.find(id) ?? page.view()?.marks.findLast(({ kind }) => kind === "error")
  if (mark?.kind !== "error" || !page.data.open) return
  const { kind, report, value } = mark
  page.chosen.mark = mark.id
  page.change({ do: "mark", mark: { kind, report, value: { ...value, significant: !value.significant } }, ...nameOf(mark) })
}

export function remove(page, id = page.chosen.mark) {
  if (page.kind === "answer") return removeHere(page)
  const mark = page.find(id)
  if (!mark || !page.data.open) return
  page.chosen.mark = null
  page.change({ do: "unmark", ...nameOf(mark) })
}

export function nextMark(page) {
  const marks = (page.view()?.marks ?? []).filter(({ kind, value }) => kind === "error" || value.id)
  if (!marks.length) return
  const nameOfMark = (mark) => mark.value.id ?? mark.id
  const place = marks.findIndex((mark) => page.is(mark, page.chosen.mark) || nameOfMark(mark) === page.chosen.mark)
  page.choose({ mark: nameOfMark(marks[(place + 1) % marks.length]) })
}

// To the sentence or observation after or before.
export function move(page, by) {
  const view = page.view()
  if (!view) return
  if (page.kind === "label") {
    const last = page.choices.observations.length - 1
    return page.choose({ row: Math.min(Math.max(page.chosen.row + by, 0), last) })
  }
  if (page.kind === "answer") return moveInForm(page, by)
  const stops = stopsOf(view.reports, page.kind === "error")
  const [report, sentence] = stepped(stops, [page.chosen.report, page.chosen.sentence], by)
  page.choose({ report, sentence, words: null, mark: null, dispute: null })
}

// Whether words are marked now: where errors are, and where a question asks for it.
function marksWords(page) {
  return page.kind === "error" || (page.kind === "answer" && rowHere(page)?.question.kind === "mark")
}

export function moveWord(page, by, extend) {
  const report = page.view()?.reports[page.chosen.report]
  const sentence = report?.sentences[page.chosen.sentence]
  if (!marksWords(page) || !sentence) return
  const last = wordsOf(report.text, sentence).length - 1
  if (last >= 0) page.choose({ words: chosenByKey(page.chosen.words, by, extend, last), mark: null })
}

// A click on a sentence chooses it, another on a word of it the word; ``word`` is -1 between words.
export function clicked(page, report, sentence, word, extend) {
  if (page.kind === "answer") {
    const words = () => (word >= 0 ? chosenByClick(page.chosen.words, word, extend) : null)
    return clickedInForm(page, report, sentence, words)
  }
  const same = page.chosen.report === report && page.chosen.sentence === sentence
  const words = same && word >= 0 && page.kind === "error" ? chosenByClick(page.chosen.words, word, extend) : null
  page.choose({ report, sentence, words, mark: null, dispute: null })
}
