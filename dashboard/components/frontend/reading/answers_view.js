// The buttons that answer, and the list of errors that were marked.
import { make } from "../dom.js"
import { preferred, remove, sentenceHere, significance } from "./answering.js"
import { textOf } from "./words.js"

const HINTS = {
  label: ["hint keyboard", "Keys 1 – 4 answer from left to right, ↑ ↓ change the observation."],
  error: ["hint", "Pick the wrong sentence (↑ ↓ or click) or word (← → or click again), then the kind of error. " +
    "It counts as clinically significant; S changes that. For something left out, pick “whole report”."],
}

// [name, what it means] of each button.
function choicesOf(page, view) {
  const { errors, support } = page.data.choices
  return {
    error: () => errors,
    preference: () => [...view.reports.map(({ name }) => [`Report ${name}`, ""]), ["No difference", ""]],
    helpfulness: () => support.map((name) => [name, ""]),
    label: () => [], // its buttons are in the table
  }[page.kind]()
}

// Place of the answer that was given; -1 without.
function given(page, view) {
  if (page.kind === "preference") return preferred(view)
  if (page.kind !== "helpfulness") return -1
  const { report, sentence } = sentenceHere(page, view)
  const mark = view.marks.find(({ report: name, value }) => name === report?.name && value.span[0] === sentence?.[0])
  return page.data.choices.support.indexOf(mark?.value.support)
}

export function drawPalette(page, view) {
  const palette = page.$(".palette")
  const answered = given(page, view)
  palette.replaceChildren(...choicesOf(page, view).map(([name, words], index) => {
    const key = make("kbd", { text: String(index + 1) })
    const button = make("button", { type: "button", title: words, "aria-pressed": String(index === answered) }, key, ` ${name}`)
    button.disabled = !page.data.open
    button.onclick = () => page.answer(index + 1)
    return button
  }))
  if (page.kind === "helpfulness") palette.append(highlightHint(page, view))
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
  list.hidden = page.kind !== "error" || !view.marks.length
  list.replaceChildren(...(list.hidden ? [] : view.marks.map((mark) => item(page, view, mark))))
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
