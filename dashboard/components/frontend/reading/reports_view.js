// The reports of a case with what is marked and chosen in them, and the observations of one that has no report.
import { make } from "../dom.js"
import { clicked, preferred } from "./answering.js"
import { rowHere } from "./form_answers.js"
import { observationsOf } from "./questions.js"
import { piecesOf, spanOf, textOf, within, wordsOf } from "./words.js"

export function reports(page, view) {
  return view.reports.map((report, at) => {
    const head = heading(page, view, report, at)
    const marks = view.marks.filter((mark) => mark.report === report.name)
    const text = make("p")
    report.sentences.forEach((_, number) => text.append(sentenceOf(page, view, report, at, number, marks), " "))
    const chosen = page.kind === "preference" && preferred(view) === at
    if (chosen) head.append(make("small", { text: " ✓ preferred" }))
    return make("article", { className: chosen ? "preferred" : "" }, head, text)
  })
}

function heading(page, view, report, at) {
  const place = view.reports.length === 2 && page.kind === "preference" ? `${at + 1} · ` : ""
  const model = page.data.names?.[report.name]
  const head = make("h2", { text: `${place}Report ${report.name}${model ? ` (${model})` : ""}` })
  const row = page.kind === "answer" ? rowHere(page, view) : null
  if (page.kind === "error" || (row?.question.kind === "mark" && row.report === report.name)) {
    head.className = page.chosen.report === at && page.chosen.sentence < 0 ? "here whole" : "whole"
    head.append(make("small", { text: " whole report" }))
    head.onclick = () => page.choose({ report: at, sentence: -1, words: null, mark: null, dispute: null })
  }
  return head
}

function sentenceOf(page, view, report, at, number, marks) {
  const sentence = report.sentences[number]
  const words = wordsOf(report.text, sentence)
  const here = page.chosen.report === at && page.chosen.sentence === number && asksForText(page, view)
  const range = here && page.chosen.words ? spanOf(sentence, words, page.chosen.words) : null
  const box = make("span", { className: `sentence${here ? (range ? " near here" : " here") : ""}`, "data-sentence": number })
  for (const span of piecesOf(sentence, words, marks.map(({ value }) => value.span ?? []))) {
    const piece = make("span", { text: textOf(report.text, span) })
    if (range && within(span, range)) piece.classList.add("word-here")
    if (page.kind === "error" || page.kind === "answer") showMarks(page, view, piece, span, marks)
    const word = words.findIndex((each) => within(span, each))
    piece.onclick = (event) => {
      event.stopPropagation()
      clicked(page, at, number, word, event.shiftKey)
    }
    box.append(piece)
  }
  const answer = page.kind === "helpfulness" && marks.find(({ value }) => value.span?.[0] === sentence[0])
  if (answer) {
    box.dataset.support = answer.value.support
    box.append(make("sup", { text: answer.value.support }))
  }
  return box
}

// Whether a sentence, or words of it, are what is answered now.
function asksForText(page, view) {
  if (page.kind !== "answer") return page.kind !== "preference"
  const question = rowHere(page, view)?.question
  return question?.of === "sentence" || (question?.kind === "mark" && question.on.includes("words"))
}

function showMarks(page, view, piece, span, marks) {
  for (const mark of marks.filter(({ kind, value }) => value.span && (kind === "error" || value.id) && within(span, value.span))) {
    piece.classList.add("marked")
    if (mark.value.significant) piece.classList.add("significant")
    if (page.is(mark, page.chosen.mark) || (mark.value.id && mark.value.id === page.chosen.mark)) piece.classList.add("chosen")
    if (span[1] === mark.value.span[1]) piece.append(make("sup", { text: String(view.marks.indexOf(mark) + 1) }))
  }
}

export function observations(page, view) {
  const { states } = page.choices
  const names = observationsOf(page.choices.observations, view)
  const rows = names.map((name, row) => {
    const given = view.marks.find(({ value }) => value.observation === name)?.value.state
    const disputed = view.disputed.some(({ question }) => question === name)
    const className = `${row === page.chosen.row ? "here" : ""}${disputed ? " disputed-row" : ""}`
    const line = make("tr", { className }, make("th", { scope: "row", text: `${disputed ? "◆ " : ""}${name}` }))
    states.forEach(([state, words], index) => {
      const title = `${words} (${index + 1})`
      const button = make("button", { type: "button", "aria-pressed": String(given === state), title, text: words })
      button.onclick = () => {
        page.chosen.row = row
        page.answer(index + 1)
      }
      line.append(make("td", {}, button))
    })
    return line
  })
  return [make("table", { className: "observations" }, ...rows)]
}
