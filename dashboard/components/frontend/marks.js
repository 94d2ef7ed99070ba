// How a finding is marked: a sign and a word for its outcome against the reference, or for what a report says of it.
import { make } from "./dom.js"

export const SIGNS = { found: "✓", missed: "○", invented: "+", opposite: "⇄", positive: "●", uncertain: "?", negative: "–" }
export const WORDS = {
  found: "found", missed: "missed", invented: "invented", opposite: "opposite of the reference",
  positive: "present", uncertain: "uncertain", negative: "absent", blank: "not mentioned",
}

export function sign(kind) {
  return make("span", { className: "sign", text: SIGNS[kind], "data-outcome": kind, "aria-hidden": "true" })
}
