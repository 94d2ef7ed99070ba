// The line above the case: where the reader is, how long it takes, whether all is saved, and a button a case.
import { make } from "../dom.js"
import { minutes } from "./reading_clock.js"

const STATES = { pending: "not read", done: "done", skipped: "skipped" }

export function drawTop(page) {
  const { data } = page
  if (!data || !page.at) return
  const states = data.places.map((place) => page.stateOf(place))
  const ids = data.places.map(([id]) => id)
  const practice = data.practice ?? 0 // these come first, and count nowhere
  const [read, cases] = [states.slice(practice).filter(([state]) => state !== "pending").length, ids.length - practice]
  const place = ids.indexOf(page.at)
  page.$(".title").textContent = data.title
  page.$(".case").textContent = place < practice ? `Practice ${place + 1} of ${practice}` : `${data.sitting && `${data.sitting} · `}Case ${place - practice + 1} of ${cases} · ${read} read`
  page.$(".pace").textContent = pace(data, page.clock.active, read, cases)
  drawSaved(page)
  drawPlaces(page, ids, states)
}

// What is known of time, in words: ``usual`` is the reader's median for a case in seconds, null before the first; ``active``
// are seconds that were not told yet.
export function pace({ open, usual, seconds_left: left }, active, read, cases) {
  if (!open) return "closed: nothing can be changed"
  const parts = []
  if (usual) {
    if (usual >= 0.5) parts.push(`${Math.round(usual)} s a case`)
    if (read < cases) parts.push(`about ${Math.max(1, Math.ceil((usual * (cases - read)) / 60))} min left`)
  }
  if (left !== null) parts.push(`${minutes(left - active)} of your time left`)
  return parts.join(" · ")
}

function drawSaved(page) {
  const { unsaved } = page.sender
  const { changes } = page.outbox
  const saved = page.$(".saved")
  const waiting = page.saves
  saved.dataset.state = unsaved ? "unsaved" : waiting ? "saving" : "saved"
  saved.title = unsaved
  if (unsaved) saved.textContent = `Not saved yet (${changes.length} waiting)`
  else if (waiting) saved.textContent = "Saving …"
  else saved.textContent = page.savedAt ? `✓ Saved ${page.savedAt.toLocaleTimeString([], { hour12: false })}` : "✓ All saved"
  if (unsaved && page.saidUnsaved !== unsaved) page.say(unsaved)
  else if (!unsaved && page.saidUnsaved) page.say("")
  page.saidUnsaved = unsaved
}

function drawPlaces(page, ids, states) {
  const places = page.$(".places")
  if (places.childElementCount !== ids.length) {
    places.replaceChildren(...ids.map((id) => {
      const button = make("button", { type: "button", tabindex: -1 })
      button.onclick = () => page.go(id)
      return button
    }))
  }
  ids.forEach((id, index) => {
    const [state, flagged] = states[index]
    const button = places.children[index]
    button.dataset.state = state
    button.dataset.flagged = String(flagged)
    const practice = page.data.practice ?? 0
    const name = index < practice ? `Practice ${index + 1}` : `Case ${index - practice + 1}`
    const words = `${name}: ${STATES[state]}${flagged ? ", flagged" : ""}`
    button.dataset.practice = String(index < practice)
    button.title = words
    button.setAttribute("aria-label", words)
    if (id === page.at) button.setAttribute("aria-current", "true")
    else button.removeAttribute("aria-current")
  })
}
