// What the page hears, from the reader and from the browser, and what its buttons do.
import { pressed } from "./keys.js"

const COMMENT_AFTER = 700 // ms without a key until a comment is saved

export function listen(page, signal) {
  const on = (target, names, call, more = {}) => {
    for (const name of names.split(" ")) target.addEventListener(name, call, { signal, ...more })
  }
  // Before Streamlit's own keys, which take C and R.
  on(window, "keydown", (event) => pressed(page, event), { capture: true })
  on(window, "pointermove pointerdown keydown wheel", () => page.clock.touch(), { capture: true, passive: true })
  on(window, "cxr-lens-plate", ({ detail }) => detail === page.at && page.draw())
  on(page.editor.area, "input", () => page.editor.input())
  on(page.editor.area, "paste", (event) => page.editor.paste(event))
  on(window, "pagehide", () => {
    page.leave()
    page.second.close()
  })
  on(window, "beforeunload", (event) => {
    if (page.saves && !page.reloads) event.preventDefault() // the browser asks
  })
  on(window, "focus", () => page.lookAgain())
  on(document, "visibilitychange", () => (document.visibilityState === "hidden" ? page.tellTime() : page.lookAgain()))
  on(page.root, "pointerdown", () => (page.pressed = true), { capture: true })
  on(window, "pointerup pointercancel pointermove keydown", (event) => {
    if (!page.pressed || event.buttons) return // a button that was let go outside the window is noticed at the next move
    page.pressed = false
    setTimeout(() => page.undrawn && page.draw()) // after the click
  }, { capture: true })
  on(page.root, "click", (event) => {
    const go = event.target.closest("[data-go]")?.dataset.go
    if (go) act(page, go)
  })
  // After a drag on the image the keys are the report's again, so that a number is an answer and not a preset.
  on(page.$(".film"), "pointerup pointercancel click", () => {
    if (!page.onImage) page.focus()
  })
  on(page.$(".typing textarea"), "input", () => {
    clearTimeout(page.pause)
    page.pause = setTimeout(() => page.typing !== "skip" && page.typed(false), COMMENT_AFTER)
  })
}

// Do what a button or key names.
export function act(page, name) {
  const acts = {
    next: () => page.next(), previous: () => page.step(-1), first: () => page.firstOpen(),
    help: () => page.over("help"), instructions: () => page.over("instructions"),
    pause: () => page.over("pause"), second: () => page.second.toggle(),
    typed: () => page.typed(true), untyped: () => page.untyped(),
    heat: () => {
      page.heat = !page.heat
      page.draw()
    },
  }
  const changes = {
    undo: () => page.change({ do: "undo" }), comment: () => page.type("comment"),
    flag: () => page.change({ do: "annotate", fields: { flagged: !page.view().flagged } }),
    skip: () => {
      if (page.view().state === "skipped") page.change({ do: "annotate", fields: { state: "pending" } })
      else page.type("skip")
    },
  }
  if (acts[name]) acts[name]()
  else if (page.data.open && page.view()) changes[name]?.()
}
