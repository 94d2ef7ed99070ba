// A rubric of questions on one case: which are asked where, which have an answer, and what is missing. As in
// core/reviews/answer_marks.py, where the server decides.

export const CANNOT_JUDGE = "cannot judge"
export const NONE = "none"
export const TIE = "tie"
const WRITTEN = ["text", "replacement"]
const OF_TEXT = ["report", "sentence", "finding"]

export const ofText = ({ of }) => OF_TEXT.includes(of)
export const isWritten = ({ kind }) => WRITTEN.includes(kind)

const slotAt = (question, report, place) => `answer/${question.id}/${report}/${place}`

function row(question, report, { item = "", span = null, finding = "" } = {}) {
  return { question, report, item, span, finding, slot: slotAt(question, report, item || (span ? span.join("-") : finding)) }
}

// Where an answer stands; a mark on words is the finding that it is itself.
function rowOf(question, { report, value }) {
  const span = question.of === "sentence" ? value.span : null
  return row(question, report, { item: value.item, span, finding: (question.kind === "mark" ? value.id : value.finding) ?? "" })
}

const isAnswer = (mark, id, report) => mark.kind === "answer" && mark.value.question === id && (report === undefined || mark.report === report)

function matches(question, answer, { answers }) {
  if (!answers.length) return answer !== CANNOT_JUDGE && answer !== NONE
  if (Array.isArray(answer)) return answer.some((each) => answers.includes(each))
  if (question.kind === "preference" && answer !== TIE && answer !== CANNOT_JUDGE) return answers.includes("a report")
  return answers.includes(answer)
}

function isAt({ items }, at, other) {
  const free = (one, two) => !one || !two || String(one) === String(two)
  const sameItem = items.length ? items.includes(other.item) : free(at.item, other.item)
  return sameItem && free(at.report, other.report) && free(at.span, other.span) && free(at.finding, other.finding)
}

// Whether a question is asked in this place, by its condition, and those that it hangs on are.
export function isAsked(at, questions, marks) {
  const { when, of, finding } = at.question
  if (of === "finding" && !marks.some(({ value }) => value.id === at.finding)) return false
  if (!when) return true
  const parent = questions.find(({ id }) => id === when.question)
  const found = marks.some((mark) =>
    isAnswer(mark, parent.id) && isAt(when, at, rowOf(parent, mark)) && matches(parent, mark.value.answer, when))
  if (!found || parent.kind === "mark") return found
  const above = row(parent, ofText(parent) ? at.report : "", {
    item: parent.items.length ? at.item : "", span: parent.of === "sentence" ? at.span : null,
    finding: parent.of === "finding" || parent.id === finding ? at.finding : "",
  })
  return isAsked(above, questions, marks)
}

// Questions on the text of reports that follow each other are asked report by report, those of a finding finding by finding.
function* blocks(questions) {
  for (let at = 0; at < questions.length;) {
    let end = at + 1
    if (ofText(questions[at])) while (end < questions.length && ofText(questions[end])) end++
    yield questions.slice(at, end)
    at = end
  }
}

function* rowsOfReport(questions, report, marks) {
  for (let at = 0; at < questions.length;) {
    const question = questions[at]
    let end = at + 1
    if (question.of === "finding") {
      while (end < questions.length && questions[end].finding === question.finding) end++
      for (const mark of marks.filter((each) => isAnswer(each, question.finding, report.name) && each.value.id)) {
        for (const each of questions.slice(at, end)) yield row(each, report.name, { finding: mark.value.id })
      }
    } else if (question.of === "sentence") {
      for (const span of report.sentences) yield row(question, report.name, { span })
    } else if (question.items.length) {
      for (const item of question.items) yield row(question, report.name, { item })
    } else yield row(question, report.name)
    at = end
  }
}

function* allRows(questions, view) {
  for (const block of blocks(questions)) {
    const texts = ofText(block[0]) ? view.reports : [{ name: "", sentences: [] }]
    for (const report of texts) yield* rowsOfReport(block, report, view.marks)
  }
}

// What a third reader settles: the questions that are disputed, and numbers where readers counted differently.
function disputedRows(questions, view) {
  const rows = view.disputed.map(({ report, question: label, words, counts }) => {
    const question = questions.find(({ id }) => id === label.split(/[: ]/)[0])
    if (counts.length) {
      const options = counts.map((count) => [count, String(count)])
      const counted = { ...question, ask: words, kind: "count", options, items: [], label, cannot_judge: false, required: true }
      return { ...row(counted, report), slot: `count/${report}/${label}` }
    }
    const [head, item = ""] = label.split(": ")
    const span = head.split(" ")[1]?.split("-").map(Number) ?? null
    const about = question.kind === "choices" ? item.split(", ").slice(0, -1).join(", ") : item
    return row({ ...question, required: true }, report, { item: question.items.length ? about : "", span })
  })
  return rows.filter((each, index) => rows.findIndex(({ slot }) => slot === each.slot) === index)
}

// All questions that are asked on a case, in their order.
export function rowsOf(questions, view) {
  if (view.disputed.length) return disputedRows(questions, view)
  return [...allRows(questions, view)].filter((each) => isAsked(each, questions, view.marks))
}

// The mark that answers a question; of one for marks, that there is none.
export function answerOf(at, marks) {
  return marks.find((mark) => markSlot(mark) === (at.question.kind === "mark" ? `${at.slot}${NONE}` : at.slot))
}

// The slot of an answer, from its value.
export function markSlot({ kind, report, value }) {
  if (kind === "count") return `count/${report}/${value.question}`
  if (kind !== "answer") return ""
  const place = value.id ?? (value.answer === NONE ? NONE : value.item ?? value.finding ?? value.span?.join("-") ?? "")
  return `answer/${value.question}/${report}/${place}`
}

// What was marked for a question.
export function marksOf(at, marks) {
  return marks.filter((mark) => isAnswer(mark, at.question.id, at.report) && mark.value.id)
}

export function isAnswered(at, marks) {
  if (at.question.kind === "edit") return Boolean(answerOf(at, marks)?.value.answer.trim()) // empty while it is written
  return Boolean(answerOf(at, marks)) || (at.question.kind === "mark" && marksOf(at, marks).length > 0)
}

// A question with its place, in words.
export function inWords({ question, report, item }, reports) {
  const about = [report && reports.length > 1 ? `report ${report}` : "", item].filter(Boolean).join(", ")
  return about ? `${about}: ${question.ask}` : question.ask
}

// What must still be answered, in words.
export function missingAnswers(questions, view) {
  const left = rowsOf(questions, view).filter((each) => each.question.required && !isAnswered(each, view.marks))
  const words = left.slice(0, 3).map((each) => `“${inWords(each, view.reports)}”`).join(", ")
  return left.length > 3 ? `${words} and ${left.length - 3} more` : words
}

// [answer, words] of each key from 1.
export function answersTo({ question }, view) {
  if (question.kind === "preference") {
    const reports = view.reports.map(({ name }) => [name, `Report ${name}`])
    return question.tie ? [...reports, [TIE, "No difference"]] : reports
  }
  if (question.kind === "mark" && question.required) return [...question.options, [NONE, "Nothing to mark"]]
  return isWritten(question) ? [] : question.options
}

// The next row without an answer after this one; else the first that must have one, else none.
export function nextOpen(rows, slot, marks) {
  const at = rows.findIndex((each) => each.slot === slot)
  const open = (each) => !isAnswered(each, marks)
  return rows.slice(at + 1).find(open) ?? rows.slice(0, Math.max(at, 0)).find((each) => open(each) && each.question.required) ?? null
}

// Answers of all items of a question that have none: (item, answer).
export function restOf(question, stateOf) {
  const { rest, items } = question
  if (!rest) return []
  const open = items.filter((item) => stateOf(item) === undefined && item !== rest.nothing)
  const found = open.map((item) => [item, rest.answer])
  if (rest.nothing && stateOf(rest.nothing) === undefined) {
    const others = items.filter((item) => item !== rest.nothing && !rest.beside.includes(item))
    const isClear = others.every((item) => [undefined, rest.answer].includes(stateOf(item)))
    found.push([rest.nothing, isClear ? rest.nothing_answer : rest.answer])
  }
  return found
}
