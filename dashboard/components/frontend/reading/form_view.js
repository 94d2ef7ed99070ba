// The questions of a rubric below the reports, each with its answers.
import { make } from "../dom.js"
import { CANNOT_JUDGE, NONE, answerOf, answersTo, isWritten, marksOf } from "./form.js"
import { answerRow, cannotJudge, chooseRow, formRows, removeFinding, rowHere, startWriting } from "./form_answers.js"
import { textOf } from "./words.js"

export function drawForm(page, view) {
  const form = page.$(".form")
  form.hidden = page.kind !== "answer"
  if (form.hidden) return
  const rows = formRows(page, view).filter(({ question }) => question.kind !== "edit") // which has a field of its own
  form.hidden = !rows.length
  const here = rowHere(page, view)
  let before = null
  form.replaceChildren(...rows.flatMap((row) => {
    const drawn = asked(page, view, row, row.slot === here?.slot, before)
    before = row
    return drawn
  }))
  form.querySelector(".here")?.scrollIntoView({ block: "nearest" })
}

function asked(page, view, row, isHere, before) {
  const { question } = row
  const follows = before?.question === question && before.report === row.report && Boolean(row.item || row.span)
  const parts = []
  if (!follows && (row.item || row.span)) parts.push(make("p", { className: "ask", text: words(view, row, before) }, ...keyOf(question)))
  const box = make("div", { className: `row-of-form${isHere ? " here" : ""}`, "data-slot": row.slot, role: "group" })
  box.setAttribute("aria-label", question.ask)
  box.onclick = (event) => {
    if (!event.target.closest("button")) chooseRow(page, row)
  }
  const title = row.item || (row.span && `“${textOf(view.reports.find(({ name }) => name === row.report).text, row.span)}”`)
  box.append(make("span", { className: title ? "item" : "ask", text: title || words(view, row, before) }, ...(title ? [] : keyOf(question))))
  box.append(isWritten(question) ? written(page, view, row, isHere) : options(page, view, row, isHere))
  parts.push(box, ...findings(page, view, row))
  return parts
}

function words(view, row, before) {
  const report = row.report && view.reports.length > 1 && before?.report !== row.report ? `Report ${row.report}: ` : ""
  return report + row.question.ask
}

function keyOf({ key }) {
  return key ? [make("kbd", { text: ` ${key.toUpperCase()}` })] : []
}

function options(page, view, row, isHere) {
  const { question } = row
  const given = answerOf(row, view.marks)?.value
  const value = given?.answer ?? given?.count
  const list = make("span", { className: "options" })
  const add = (key, text, title, on, press) => {
    const button = make("button", { type: "button", title, "aria-pressed": String(on) }, ...(isHere ? [make("kbd", { text: key }), " "] : []), text)
    button.disabled = !page.data.open
    button.onclick = () => {
      if (!isHere) chooseRow(page, row)
      press()
    }
    list.append(button)
  }
  answersTo(row, view).forEach(([answer, says], index) => {
    const text = question.kind === "scale" ? `${answer} · ${says}` : says
    const on = Array.isArray(value) ? value.includes(answer) : value === answer
    add(String(index + 1), text, question.explained[answer] ?? says, on, () => answerRow(page, page.view(), index))
  })
  if (question.cannot_judge) add("J", "Cannot judge", "It cannot be judged here (J)", value === CANNOT_JUDGE, () => cannotJudge(page))
  return list
}

function written(page, view, row, isHere) {
  const text = answerOf(row, view.marks)?.value.answer
  const button = make("button", { type: "button", className: "write" }, ...(isHere ? [make("kbd", { text: "Enter" }), " "] : []), text ? "Change" : "Write")
  button.disabled = !page.data.open
  button.onclick = () => {
    chooseRow(page, row)
    startWriting(page)
  }
  return make("span", { className: "options" }, make("span", { className: "written", text: text ?? "" }), button)
}

// What is marked, below the question for it.
function findings(page, view, row) {
  if (row.question.kind !== "mark") return []
  const named = new Map(row.question.options)
  return marksOf(row, view.marks).map((mark) => {
    const { span, region, answer, id } = mark.value
    const report = view.reports.find(({ name }) => name === mark.report)
    const place = [span ? `“${textOf(report?.text ?? "", span)}”` : "", region ? "region on the image" : ""].filter(Boolean).join(", ")
    const about = make("button", { type: "button", className: "about" }, make("b", { text: named.get(answer) ?? answer }), ` ${place || (report ? "whole report" : "")}`)
    about.onclick = () => page.choose({ slot: row.slot, mark: id })
    const out = make("button", { type: "button", title: "Remove (Delete)", "aria-label": "Remove this mark", text: "×" })
    out.onclick = () => removeFinding(page, page.view(), mark)
    out.disabled = !page.data.open
    return make("div", { className: `finding${page.chosen.mark === id ? " here" : ""}` }, about, out)
  })
}

export function hintOfForm(page, view) {
  const row = rowHere(page, view)
  if (row?.question.kind !== "mark") return ""
  const region = row.question.on.includes("region") ? " For a place on the image draw a box first (V, then B)." : ""
  const text = row.report ? "Pick the sentence (↑ ↓ or click) or word (← → or click again), then the kind." : ""
  const none = row.question.required ? ` ${answersTo(row, view).findIndex(([answer]) => answer === NONE) + 1}: nothing to mark.` : ""
  return `${text}${region}${none} Q goes to the next question.`
}
