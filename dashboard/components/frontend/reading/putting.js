// Changes that give an answer, or take it back.
import { nameOf, slotOf } from "./settling.js"

// A question with one answer: change the mark that is there, or make it.
export function put(page, view, mark) {
  const slot = slotOf(mark)
  const found = view.marks.find((each) => each.slot === slot || (each.local && slotOf(each) === slot))
  if (found && JSON.stringify(found.value) === JSON.stringify(mark.value)) return null
  return page.change({ do: "mark", mark, ...(found ? nameOf(found) : {}) })
}

export function takeBack(page, mark) {
  if (mark) page.change({ do: "unmark", ...nameOf(mark) })
}
