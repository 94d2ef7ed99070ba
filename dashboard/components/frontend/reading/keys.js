// The keys of the reading page: what they do, and what the page says of them.
import { answer, answerOthers, move, moveWord, nextDisputed, nextMark, remove, significance } from "./answering.js"
import { cannotJudge, jump, moveRow, startWriting } from "./form_answers.js"

export const KEYS = {
  always: [
    ["N", "finish the case, go to the next"], ["P", "previous case"], ["G", "first case not read yet"], ["U", "undo"],
    ["F", "flag the case"], ["C", "comment"], ["X", "skip with a reason, or take that back"],
    ["D", "as third reader: the next disagreement that is not settled"],
    [".", "a break: the time stands still until you go on"], [",", "the image in a second window, and back"],
    ["V", "keys work on the image; Esc: on the report again"], ["I", "instructions"], ["?", "these keys"],
  ],
  image: [
    ["V", "first, so that the keys work on the image"], ["W M R", "window, pan, ruler"],
    ["← ↑ ↓ →", "pan; with Shift: window and level"], ["1 – 4", "presets"], ["+ − 0", "zoom in, out, reset"],
    ["I", "invert"], ["R, arrows, Enter", "ruler: move, start, draw, end"],
    ["B, Enter, arrows, Enter", "a box for the next mark, where marks have a place; with Shift its size"],
  ],
  error: [
    ["↑ ↓", "sentence before, after; above the first: the whole report"], ["← →", "word before, after; with Shift: several words"],
    ["1 – 6", "mark an error of that kind there"], ["M", "choose a mark; again: the next"],
    ["S", "clinically significant or not, of the chosen mark"], ["Delete", "remove the chosen mark"],
  ],
  preference: [["1", "the first report"], ["2", "the second report"], ["3", "no difference"]],
  helpfulness: [
    ["↑ ↓", "sentence before, after"], ["1", "does not support"], ["2", "partly supports"], ["3", "supports"],
    ["H", "hide or show what is highlighted"],
  ],
  edit: [
    ["E", "write the report"], ["Ctrl + Enter", "finish the case, go to the next"], ["Esc", "leave the text: the other keys work then"],
    ["Ctrl + Z", "undo what was typed, as in any text; with Shift: redo"], ["Y", "keep the own text, where another tab changed it"],
  ],
  label: [
    ["↑ ↓", "observation before, after"], ["1", "cannot be judged"], ["2", "absent"], ["3", "uncertain"], ["4", "present"],
    ["A", "all that have no answer: absent"],
  ],
  answer: [
    ["↑ ↓", "question before, after; where words are marked: sentence before, after"], ["Q", "next question; with Shift: the one before"],
    ["1 – 9", "the answer with that number; where words are marked: a mark of that kind"], ["J", "cannot judge"],
    ["← →", "word before, after, where words are marked; with Shift: several"], ["Enter", "write, where text is asked for"],
    ["A", "the usual answer for all rows that have none, where there is one"], ["Delete", "take the answer or the mark back"],
  ],
}
const ACTS = { n: "next", p: "previous", u: "undo", f: "flag", c: "comment", x: "skip", g: "first", i: "instructions", "?": "help", h: "heat", ".": "pause", ",": "second" }
const ZOOM = { "+": "in", "=": "in", "-": "out", 0: "reset" }
const FIELDS = "input, textarea, select, [contenteditable], [role=combobox]"

// The digit of a key, 1 to 9: by its place, since on a French keyboard another sign comes without Shift.
export function digitOf({ code, key }) {
  const digit = /^(?:Digit|Numpad)([1-9])$/.exec(code ?? "")?.[1] ?? (/^[1-9]$/.test(key) ? key : null)
  return digit && Number(digit)
}

export function pressed(page, event) {
  if (!page.data || !page.root.isConnected) return
  const target = event.composedPath()[0]
  const mine = page.root.contains(target)
  if (!mine && target instanceof HTMLElement && target.matches(FIELDS)) return
  const take = () => {
    event.preventDefault()
    event.stopImmediatePropagation()
  }
  const writing = whereWritten(page, target)
  if (writing) return writing(page, event, take)
  if (event.ctrlKey || event.metaKey || event.altKey) return
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key
  if (page.overs) return overSheet(page, key, take)
  if (page.onImage) return onImage(page, key, event, take)
  if ((key === "Enter" || key === " ") && mine && target.matches("button")) return
  const digit = event.shiftKey ? null : digitOf(event)
  const does = digit ? () => answer(page, digit) : meaning(page, key, event.shiftKey)
  if (!does) return
  take()
  does()
}

// What takes the keys of the field in which somebody writes; nothing elsewhere.
function whereWritten(page, target) {
  if (target === page.$(".typing textarea")) return whileTyping
  return page.editor && target === page.editor.area && !page.overs ? whileEditing : null
}

// Keys of a rubric of questions; also the letters that go to a question.
function ofForm(page, key, shift) {
  if (page.data.questions.some((question) => question.key && question.key === key)) return () => jump(page, key)
  return {
    j: () => cannotJudge(page), q: () => moveRow(page, shift ? -1 : 1), Enter: () => startWriting(page),
  }[key]
}

function meaning(page, key, shift) {
  const own = page.kind === "answer" && ofForm(page, key, shift)
  if (own) return own
  if (Object.hasOwn(ACTS, key)) return () => page.act(ACTS[key])
  if (Object.hasOwn(ZOOM, key)) return () => page.viewer.act(ZOOM[key])
  return {
    v: () => page.giveImage(true), s: () => significance(page), m: () => nextMark(page),
    Delete: () => remove(page), Backspace: () => remove(page),
    a: () => answerOthers(page), d: () => nextDisputed(page),
    y: () => (page.editor?.refused.has(page.at) ? page.editor.choose(true) : page.conflict && page.useMine()), Escape: () => page.say(""),
    ArrowUp: () => move(page, -1), ArrowDown: () => move(page, 1),
    ArrowLeft: () => moveWord(page, -1, shift), ArrowRight: () => moveWord(page, 1, shift),
  }[key]
}

function whileTyping(page, event, take) {
  const done = event.key === "Enter" && (event.ctrlKey || event.metaKey || (page.typing === "skip" && !event.shiftKey))
  if (event.key === "Escape") {
    take()
    page.untyped()
  } else if (done) {
    take()
    page.typed(true)
  } else event.stopPropagation() // Streamlit must not take C and R for itself
}

function whileEditing(page, event, take) {
  if (event.isComposing) return event.stopPropagation()
  if (event.key === "Escape") {
    take()
    page.root.focus({ preventScroll: true })
  } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    take()
    page.next()
  } else event.stopPropagation()
}

function overSheet(page, key, take) {
  const close = ["Enter", "Escape", " ", "?"].includes(key)
  if (!close && !(page.overs === "end" && (key === "g" || key === "p"))) return
  take()
  page.over(null)
  if (key === "g") page.act("first")
}

function onImage(page, key, event, take) {
  if (key === "Escape" || key === "v") {
    take()
    page.giveImage(false)
  } else if (key !== "Tab") {
    page.viewer.key(event)
    event.stopImmediatePropagation()
  }
}
