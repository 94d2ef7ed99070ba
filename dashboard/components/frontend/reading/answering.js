// What a reader's answers and choices change on the page.
import { nameOf, slotOf } from "./settling.js"
import { chosenByClick, chosenByKey, spanOf, stepped, stopsOf, wordsOf } from "./words.js"

const PREFER = ["first", "second", "tie"]

// The answer of a number, from 1.
export function answer(page, number) {
  const view = page.view()
  if (!view || !page.data.open) return
  const answers = { error: markError, preference: prefer, helpfulness: judge, label: labelRow }
  answers[page.kind](page, view, number - 1)
}

function markError(page, view, index) {
  const kind = page.data.choices.errors[index]
  const report = view.reports[page.chosen.report]
  if (!kind || !report) return
  const sentence = report.sentences[page.chosen.sentence]
  const value = { error: kind[0], significant: true }
  if (sentence) value.span = spanOf(sentence, wordsOf(report.text, sentence), page.chosen.words)
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
  const support = page.data.choices.support[index]
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
  const state = page.data.choices.states[index]
  const observation = page.data.choices.observations[page.chosen.row]
  if (!state) return
  put(page, view, { kind: "label", report: "", value: { observation, state: state[0] } })
  move(page, 1)
}

// A question with one answer: change the mark that is there, or make it.
function put(page, view, mark) {
  const slot = slotOf(mark)
  const found = view.marks.find((each) => each.slot === slot || (each.local && slotOf(each) === slot))
  if (found && JSON.stringify(found.value) === JSON.stringify(mark.value)) return
  page.change({ do: "mark", mark, ...(found ? nameOf(found) : {}) })
}

export function significance(page, id = page.chosen.mark) {
  const mark = page.find(id) ?? page.view()?.marks.at(-1)
  if (!mark || page.kind !== "error" || !page.data.open) return
  const { kind, report, value } = mark
  page.chosen.mark = mark.id
  page.change({ do: "mark", mark: { kind, report, value: { ...value, significant: !value.significant } }, ...nameOf(mark) })
}

export function remove(page, id = page.chosen.mark) {
  const mark = page.find(id)
  if (!mark || !page.data.open) return
  page.chosen.mark = null
  page.change({ do: "unmark", ...nameOf(mark) })
}

export function nextMark(page) {
  const marks = page.view()?.marks ?? []
  if (!marks.length) return
  const place = marks.findIndex((mark) => page.is(mark, page.chosen.mark))
  page.choose({ mark: marks[(place + 1) % marks.length].id })
}

// To the sentence or observation after or before.
export function move(page, by) {
  const view = page.view()
  if (!view) return
  if (page.kind === "label") {
    const last = page.data.choices.observations.length - 1
    return page.choose({ row: Math.min(Math.max(page.chosen.row + by, 0), last) })
  }
  const stops = stopsOf(view.reports, page.kind === "error")
  const [report, sentence] = stepped(stops, [page.chosen.report, page.chosen.sentence], by)
  page.choose({ report, sentence, words: null, mark: null })
}

export function moveWord(page, by, extend) {
  const report = page.view()?.reports[page.chosen.report]
  const sentence = report?.sentences[page.chosen.sentence]
  if (page.kind !== "error" || !sentence) return
  const last = wordsOf(report.text, sentence).length - 1
  if (last >= 0) page.choose({ words: chosenByKey(page.chosen.words, by, extend, last), mark: null })
}

// A click on a sentence chooses it, another on a word of it the word; ``word`` is -1 between words.
export function clicked(page, report, sentence, word, extend) {
  const same = page.chosen.report === report && page.chosen.sentence === sentence
  const words = same && word >= 0 && page.kind === "error" ? chosenByClick(page.chosen.words, word, extend) : null
  page.choose({ report, sentence, words, mark: null })
}
