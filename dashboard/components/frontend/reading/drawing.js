// Everything below the top line: the image, the question, the reports or observations, the buttons, what is typed.
import { make } from "../dom.js"
import { disputedItem, drawMarks, drawPalette, highlightOf } from "./answers_view.js"
import { textHere } from "./form_answers.js"
import { drawForm } from "./form_view.js"
import { observations, reports } from "./reports_view.js"

const HOW_TO_COUNT = " digits choose a number; ↑ ↓ go to the report, to mark the errors yourself; D comes back."

export function drawCase(page) {
  const view = page.view()
  page.root.dataset.screen = page.at
  page.root.dataset.position = view?.position ?? ""
  page.root.dataset.kind = page.kind
  drawFilm(page, view)
  drawTyping(page, view)
  if (!view) return page.$(".body").replaceChildren(make("p", { text: "Loading …" }))
  drawQuestion(page, view)
  page.editor.draw(view)
  page.$(".body").hidden = Boolean(page.editor.question)
  page.$(".body").replaceChildren(...(page.kind === "label" ? observations : reports)(page, view))
  drawForm(page, view)
  drawPalette(page, view)
  drawMarks(page, view)
  drawActions(page, view)
  page.$(".body .here")?.scrollIntoView({ block: "nearest" })
}

function drawFilm(page, view) {
  const bytes = page.plate(page.at)
  const trouble = page.$(".trouble")
  if (bytes && page.drawnPlate !== page.at) {
    const place = page.data.places.findIndex(([id]) => id === page.at)
    const name = `case ${place + 1} of ${page.data.title}`
    page.viewer.load(bytes, name)
    page.prior.show(page.plate(`${page.at}/prior`), name, page.second.viewer ? page.viewer.root.parentNode : page.$(".film"))
  }
  page.drawnPlate = bytes ? page.at : null
  page.$(".viewer").style.display = bytes ? "" : "none"
  trouble.hidden = Boolean(bytes)
  trouble.textContent = bytes ? "" : (page.trouble(page.at) ?? "The image is being prepared …")
  page.root.dataset.image = bytes ? page.at : ""
  if (bytes) page.drawRegion()
  if (page.kind === "helpfulness" && bytes && view) page.viewer.only(page.heat ? highlightOf(page, view) : null)
}

// The field is filled when it is opened, and then is the reader's.
function drawTyping(page, view) {
  if (page.drawnTyping === page.typing) return
  page.drawnTyping = page.typing
  const box = page.$(".typing")
  box.hidden = !page.typing
  if (!page.typing) return
  const area = box.querySelector("textarea")
  const { words, text, limit } = {
    comment: () => ({ words: "Comment (saved as you type)", text: view.comment, limit: page.data.comment_limit }),
    skip: () => ({ words: "Why is this case skipped?", text: view.skip_reason, limit: page.data.comment_limit }),
    answer: () => ({ words: `${page.written.question.ask} (saved as you type)`, text: textHere(page, view), limit: page.written.question.limit }),
  }[page.typing]()
  box.querySelector("span").textContent = words
  page.$('[data-go="typed"]').replaceChildren(page.typing === "skip" ? "Skip " : "Save ", make("kbd", { text: page.typing === "skip" ? "Enter" : "Ctrl + Enter" }))
  area.maxLength = limit
  area.value = text
  area.focus()
}

function drawQuestion(page, view) {
  page.$(".question").textContent = page.data.question
  const about = Object.entries(view.context).map(([name, value]) => `${name.replaceAll("_", " ")}: ${value}`)
  page.$(".context").textContent = about.join(" · ")
  const disputed = page.$(".disputed")
  disputed.hidden = !view.disputed.length
  disputed.replaceChildren(
    make("strong", { text: "Readers answered differently. Please settle:" }),
    ...(page.kind === "error" ? [make("span", { className: "keyboard", text: HOW_TO_COUNT })] : []),
    make("ul", {}, ...view.disputed.map((each, index) => disputedItem(page, view, each, index))),
  )
}

function drawActions(page, view) {
  const { open } = page.data
  const comment = page.$(".comment")
  comment.hidden = !view.comment || page.typing === "comment"
  comment.textContent = `Comment: ${view.comment}`
  const say = (name, words, on) => {
    const button = page.$(`[data-go="${name}"]`)
    if (on !== undefined) button.setAttribute("aria-pressed", String(on))
    button.firstChild.textContent = words
  }
  const skipped = view.state === "skipped"
  say("flag", view.flagged ? "Flagged " : "Flag ", view.flagged)
  say("skip", skipped ? "Skipped " : "Skip ", skipped)
  say("next", open && view.state === "pending" ? "Finish, next " : "Next ")
  for (const name of ["undo", "flag", "comment", "skip"]) page.$(`[data-go="${name}"]`).disabled = !open
}
