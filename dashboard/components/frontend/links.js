// Links to the Read page, followed within the session: the browser would load the app anew, and what was uploaded would
// be gone. With a modifier, or by another button, a link does what the browser does with links.

// `send` is told the link's query, as "study=S1&source=openi".
export function followLinks(root, send, signal) {
  root.addEventListener("click", (event) => {
    const link = event.target.closest("a[href]")
    if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return
    event.preventDefault()
    send(new URL(link.href).search.slice(1))
  }, { signal })
}
