// One step of the reader is one step of the browser's Back. The server writes the address piece by piece, and the study
// that a page opens by itself comes into it after the page: Streamlit makes each of these a step of its own.

const TOGETHER = 400 // milliseconds
const BY_ITSELF = new Set(["study", "source"]) // what a page adds when it opens

// Whether a new address belongs to the step before: it follows at once, or only says what is open anyway.
/** @param {string} before @param {string} after @param {number} since milliseconds since the step before */
export function belongsToTheStepBefore(before, after, since) {
  if (since < TOGETHER) return true
  const [old, now] = [new URL(before), new URL(after)]
  if (old.pathname !== now.pathname || old.searchParams.has("study")) return false
  const added = [...now.searchParams.keys()].filter((key) => !old.searchParams.has(key))
  const kept = [...old.searchParams].every(([key, value]) => now.searchParams.getAll(key).includes(value))
  return kept && added.every((key) => BY_ITSELF.has(key))
}

export default function mount() {
  if (window.cxrLensHistory) return
  window.cxrLensHistory = true
  const push = history.pushState.bind(history)
  let last = -Infinity
  history.pushState = (state, unused, url) => {
    const after = new URL(url ?? location.href, location.href).href
    const joined = belongsToTheStepBefore(location.href, after, performance.now() - last)
    last = performance.now()
    if (joined) history.replaceState(state, unused, url)
    else push(state, unused, url)
  }
}
