// What keys and clicks do in a rubric of questions. The chosen row is named by its slot.
import { CANNOT_JUDGE, NONE, answerOf, answersTo, isAnswered, isWritten, marksOf, nextOpen, restOf, rowsOf } from "./form.js"
import { fresh } from "./outbox.js"
import { put, takeBack } from "./putting.js"
import { spanOf, stepped, stopsOf, wordsOf } from "./words.js"

export function formRows(page, view = page.view()) {
  return view ? rowsOf(page.data.questions, view) : []
}

export function rowHere(page, view = page.view()) {
  const rows = formRows(page, view)
  const open = () => rows.find((row) => !isAnswered(row, view.marks)) ?? rows[0] ?? null
  return rows.find(({ slot }) => slot === page.chosen.slot) ?? open()
}

// Choose a row; with it the report or the sentence that it is about.
export function chooseRow(page, row, view = page.view()) {
  if (!row || !view) return
  const report = Math.max(view.reports.findIndex(({ name }) => name === row.report), 0)
  const sentence = row.span
    ? view.reports[report].sentences.findIndex(([start]) => start === row.span[0])
    : row.question.kind === "mark" && row.report ? 0 : -2
  page.choose({ slot: row.slot, report, sentence, words: null, mark: row.finding || null })
}

export function moveRow(page, by) {
  const rows = formRows(page)
  const at = rows.findIndex(({ slot }) => slot === rowHere(page)?.slot)
  chooseRow(page, rows[Math.min(Math.max(at + by, 0), rows.length - 1)])
}

// To the next place of the question that has this key.
export function jump(page, key) {
  const rows = formRows(page)
  const at = rows.findIndex(({ slot }) => slot === rowHere(page)?.slot)
  const mine = ({ question }) => question.key === key
  const row = rows.slice(at + 1).find(mine) ?? rows.find(mine)
  chooseRow(page, row)
  if (row?.question.kind === "edit") page.editor.area.focus()
}

// Up and down: the sentences of a report whose words are marked, else the questions.
export function moveInForm(page, by) {
  const view = page.view()
  const row = rowHere(page, view)
  if (!row || row.question.kind !== "mark" || !row.report) return moveRow(page, by)
  const stops = stopsOf(view.reports, true).filter(([report]) => view.reports[report].name === row.report)
  const [report, sentence] = stepped(stops, [page.chosen.report, page.chosen.sentence], by)
  return page.choose({ slot: row.slot, report, sentence, words: null, mark: null })
}

export function goToOpen(page) {
  const view = page.view()
  const rows = formRows(page, view)
  chooseRow(page, rows.find((row) => !isAnswered(row, view.marks)), view)
}

export function answerRow(page, view, index) {
  const row = rowHere(page, view)
  const [answer] = (row && answersTo(row, view)[index]) ?? []
  if (answer === undefined) return
  const { question } = row
  if (question.kind === "mark" && answer !== NONE) return markPlace(page, view, row, answer)
  if (question.kind === "choices") return choose(page, view, row, answer)
  give(page, view, row, answer)
  advance(page, row)
}

// An answer of a row that has one.
export function give(page, view, row, answer) {
  const { question, report, item, span, finding } = row
  if (question.kind === "count") return put(page, view, { kind: "count", report, value: { question: question.label, count: answer } })
  if (question.kind === "mark") for (const mark of marksOf(row, view.marks)) removeFinding(page, page.view(), mark)
  const place = { ...(item && { item }), ...(span && { span: [...span] }), ...(finding && { finding }) }
  return put(page, view, { kind: "answer", report, value: { question: question.id, answer, ...place } })
}

function choose(page, view, row, option) {
  const { options, alone } = row.question
  const given = answerOf(row, view.marks)?.value.answer
  const before = Array.isArray(given) ? given : []
  const on = !before.includes(option)
  const kept = alone.includes(option) ? [] : before.filter((each) => each !== option && !alone.includes(each))
  const after = on ? [...kept, option] : before.filter((each) => each !== option)
  give(page, view, row, options.map(([name]) => name).filter((name) => after.includes(name)))
}

export function cannotJudge(page) {
  const view = page.view()
  const row = view && rowHere(page, view)
  if (!row?.question.cannot_judge || !page.data.open) return
  give(page, view, row, CANNOT_JUDGE)
  advance(page, row)
}

function markPlace(page, view, row, answer) {
  takeBack(page, answerOf(row, view.marks)) // that there is none
  const { question } = row
  const report = view.reports.find(({ name }) => name === row.report)
  const sentence = question.on.includes("words") && report?.sentences[page.chosen.sentence]
  const value = { question: question.id, answer, id: fresh() }
  if (sentence) value.span = spanOf(sentence, wordsOf(report.text, sentence), page.chosen.words)
  if (question.on.includes("region") && page.region) value.region = page.takeRegion()
  page.change({ do: "mark", mark: { kind: "answer", report: row.report, value } })
  const child = formRows(page).find(({ finding }) => finding === value.id)
  if (child) chooseRow(page, child)
  else page.choose({ mark: value.id })
}

// A mark, with what was answered about it.
export function removeFinding(page, view, mark) {
  for (const each of view.marks) if (each.value.finding === mark.value.id) takeBack(page, each)
  takeBack(page, mark)
}

// Take back what is chosen: the finding that is asked about, or the answer of the row.
export function removeHere(page) {
  const view = page.view()
  const row = view && rowHere(page, view)
  if (!row || !page.data.open || row.question.kind === "edit") return
  const mark = view.marks.find(({ value }) => value.id && value.id === page.chosen.mark)
  if (mark) {
    removeFinding(page, view, mark)
    chooseRow(page, formRows(page).find(({ question, report }) => question.id === mark.value.question && report === mark.report))
  } else takeBack(page, answerOf(row, view.marks))
}

// After an answer to the next question; from the last about a finding back to where findings are marked.
export function advance(page, row) {
  const view = page.view()
  const rows = formRows(page, view)
  const next = nextOpen(rows, row.slot, view.marks)
  if (row.finding && next?.finding !== row.finding) {
    const home = rows.find(({ question, report }) => question.id === row.question.finding && report === row.report)
    return chooseRow(page, home, view)
  }
  return chooseRow(page, next ?? row, view)
}

// One key for all items without an answer, of the question that is chosen.
export function answerRest(page) {
  const view = page.view()
  const row = view && rowHere(page, view)
  if (!row || !page.data.open || view.disputed.length) return
  const rows = formRows(page, view).filter(({ question, report }) => question === row.question && report === row.report)
  const of = (item) => rows.find((each) => each.item === item)
  const stateOf = (item) => answerOf(of(item), view.marks)?.value.answer
  for (const [item, answer] of restOf(row.question, stateOf)) give(page, page.view(), of(item), answer)
  advance(page, row)
}

// The text of a row, while it is typed.
export function textHere(page, view = page.view()) {
  const row = rowHere(page, view)
  return row && isWritten(row.question) ? answerOf(row, view.marks)?.value.answer ?? "" : null
}

export function startWriting(page) {
  if (rowHere(page)?.question.kind === "edit") return page.editor.area.focus()
  if (page.data.open && textHere(page) !== null) page.type("answer")
}

// A click on a sentence: what asks for its words or for itself is chosen.
export function clickedInForm(page, at, number, words) {
  const view = page.view()
  const { name, sentences } = view.reports[at]
  const rows = formRows(page, view).filter(({ report }) => report === name)
  const takes = ({ question, span }) => (question.kind === "mark" && question.on.includes("words")) || span?.[0] === sentences[number]?.[0]
  const here = rowHere(page, view)
  const row = rows.find((each) => each.slot === here?.slot && takes(each)) ?? rows.find(takes)
  if (!row) return
  if (row.question.kind !== "mark") return chooseRow(page, row, view)
  const same = page.chosen.report === at && page.chosen.sentence === number
  page.choose({ slot: row.slot, report: at, sentence: number, words: same ? words() : null, mark: null })
}
