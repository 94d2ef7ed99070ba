// Changes upon what the server knows. A mark has a slot on the server; until it is saved it goes by the key of the change
// that made it, which later changes name as ``of``.
import { markSlot } from "./form.js"

// The slot of a question with one answer; "" where a reader marks as often as needed.
export function slotOf(mark) {
  if (mark.kind === "answer" || mark.kind === "count") return markSlot(mark)
  if (mark.kind === "preference") return "preference"
  if (mark.kind === "label") return `label/${mark.value.observation}`
  if (mark.kind === "helpfulness") return `helpfulness/${mark.report}/${mark.value.span.join("-")}`
  return ""
}

// How a change names a mark that is shown.
export function nameOf(mark) {
  return mark.slot ? { slot: mark.slot, version: mark.version } : { of: mark.local }
}

// Fill into a change what is known only when its turn to be sent has come; then it stays as it is, however often it is sent.
// Tells what to do with it: "send", "fetch" its screen first, or "drop" it, since what it removes is gone.
export function settle(change, screen, slots) {
  if (change.settled) return "send"
  const marks = ["mark", "edit", "unmark"].includes(change.do)
  if (!screen && (marks || change.do === "annotate")) return "fetch"
  if (change.do === "annotate") change.version = screen.version
  if (marks) {
    const slot = change.slot || slots.get(change.of) || ""
    const found = screen.marks.find((mark) => mark.slot === slot)
    if (change.do === "unmark" && !found) return "drop"
    change.slot = found ? slot : ""
    // A mark that the reader saw is changed as it was then, so that another tab's change is noticed.
    if (!found || change.version === undefined || change.of) change.version = found?.version ?? 0
  }
  change.settled = true
  return "send"
}

// What is shown of a screen: what the server knows, with the outbox on top. Marks have an ``id``, and are in the order of the
// text, so that a mark keeps its number while it is saved; those of a whole report come last.
export function onTop(screen, changes, slots) {
  const view = { ...screen, marks: screen.marks.map((mark) => ({ ...mark, id: mark.slot })) }
  for (const change of changes) {
    if (change.screen !== screen.id) continue
    const gives = change.do === "mark" || change.do === "edit"
    const id = change.slot || slots.get(change.of) || change.of || (gives && slotOf(change.mark))
    const found = view.marks.findIndex((mark) => mark.id === id)
    if (gives && found >= 0) view.marks[found] = { ...view.marks[found], ...change.mark }
    else if (gives) view.marks.push({ ...change.mark, id: change.key, slot: "", local: change.key })
    else if (change.do === "unmark" && found >= 0) view.marks.splice(found, 1)
    else if (change.do === "annotate") Object.assign(view, change.fields)
  }
  const start = (mark) => mark.value.span?.[0] ?? Infinity
  view.marks.sort((a, b) => a.report.localeCompare(b.report) || (start(a) < start(b) ? -1 : Number(start(a) > start(b))))
  return view
}
