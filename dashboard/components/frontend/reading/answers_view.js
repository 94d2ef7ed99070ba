// The buttons that answer, and the list of errors that were marked.
import { make } from "../dom.js"
import { preferred, remove, sentenceHere, settleCount, significance } from "./answering.js"
import { hintOfForm } from "./form_view.js"
import { textOf } from "./words.js"

const HINTS = {
  label: ["hint keyboard", "Keys 1 – 4 answer from left to right, ↑ ↓ change the observation, A: all others absent."],
  error: ["hint", "Pick the wrong sentence (↑ ↓ or click) or word (← → or click again), then the kind of error. " +
    "It counts as clinically significant; S changes that. For something left out, pick “whole report”."],
}

// [name, what it means] of each button.
function choicesOf(page, view) {
  const { errors, support } = page.choices
  return {
    error: () => errors,
    preference: () => [...view.reports.map(({ name }) => [`Report ${name}`, ""]), ["No difference", ""]],
    helpfulness: () => support.map((name) => [name, ""]),
    label: () => [], // its buttons are in the table
    answer: () => [], // and these in the form
  }[page.kind]()
}

// Place of the answer that was given; -1 without.
function given(page, view) {
  if (page.kind === "preference") return preferred(view)
  if (page.kind !== "helpfulness") return -1
  const { report, sentence } = sentenceHere(page, view)
  const mark = view.marks.find(({ report: name, value }) => name === report?.name && value.span[0] === sentence?.[0])
  return page.choices.support.indexOf(mark?.value.support)
}

export function drawPalette(page, view) {
  const palette = page.$(".palette")
  const answered = given(page, view)
  palette.replaceChildren(...choicesOf(page, view).map(([name, words], index) => {
    const key = make("kbd", { text: String(index + 1) })
    const button = make("button", { type: "button", title: words, "aria-pressed": String(index === answered) }, key, ` ${name}`)
    button.disabled = !page.data.open
    button.onclick = () => {
      page.chosen.dispute = null // a third reader who marks an error gives no number now
      page.answer(index + 1)
    }
    return button
  }))
  if (page.kind === "answer") palette.append(make("span", { className: "hint keyboard", text: hintOfForm(page, view) }))
  else if (page.kind === "helpfulness") palette.append(highlightHint(page, view))
  else if (HINTS[page.kind]) palette.append(make("span", { className: HINTS[page.kind][0], text: HINTS[page.kind][1] }))
}

// Group of the overlay that goes with the chosen sentence.
export function highlightOf(page, view) {
  const { report, sentence } = sentenceHere(page, view)
  return sentence ? `${report.name}/${sentence[0]}` : null
}

function highlightHint(page, view) {
  const overlay = page.viewer.header?.overlays.find(({ group }) => group === highlightOf(page, view))
  const hint = make("span", { className: "hint" })
  if (!overlay || !page.plate(page.at)) return hint
  const word = page.heat ? "Hide " : "Show "
  hint.append(overlay.label, make("button", { type: "button", "data-go": "heat" }, word, make("kbd", { text: "H" })))
  return hint
}

export function drawMarks(page, view) {
  const list = page.$(".marks")
  const errors = view.marks.filter(({ kind }) => kind === "error")
  list.hidden = page.kind !== "error" || !errors.length
  list.replaceChildren(...(list.hidden ? [] : errors.map((mark) => item(page, view, mark))))
}

// What readers answered differently; where they counted, with the numbers to choose from.
export function disputedItem(page, view, { report, words, answers, question, counts }, index) {
  const about = `${report ? `Report ${report}: ` : ""}${words}: ${answers.join(" or ")}`
  if (page.kind !== "error" || !counts.length) return make("li", { text: about })
  const here = page.chosen.dispute === index
  const counted = view.marks.find(({ kind, report: name, value }) => kind === "count" && name === report && value.question === question)
  const buttons = counts.map((count, number) => {
    const button = make("button", { type: "button", "aria-pressed": String(counted?.value.count === count) },
      ...(here ? [make("kbd", { text: String(number + 1) }), " "] : []), String(count))
    button.disabled = !page.data.open
    button.onclick = () => settleCount(page, view, number, index)
    return button
  })
  return make("li", { className: here ? "here" : "" }, `${report ? `Report ${report}: ` : ""}${words} `, ...buttons)
}

function item(page, view, mark) {
  const { error, span, significant } = mark.value
  const report = view.reports.find(({ name }) => name === mark.report)
  const words = span ? `“${textOf(report?.text ?? "", span)}”` : "whole report"
  const where = view.reports.length > 1 ? `${mark.report} · ` : ""
  const about = make("button", { type: "button", className: "about" }, make("b", { text: error }), ` ${where}${words}`)
  about.onclick = () => page.choose({ mark: mark.id })
  const weight = make("button", {
    type: "button", className: "weight", "data-significant": String(significant), title: "Clinically significant or not (S)",
    text: significant ? "▲ significant" : "△ not significant",
  })
  weight.onclick = () => significance(page, mark.id)
  const out = make("button", { type: "button", title: "Remove (Delete)", "aria-label": "Remove this mark", text: "×" })
  out.onclick = () => remove(page, mark.id)
  for (const button of [weight, out]) button.disabled = !page.data.open
  return make("li", { className: page.is(mark, page.chosen.mark) ? "here" : "" }, about, weight, out)
}
