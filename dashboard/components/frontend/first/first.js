// What stands until the page itself does: the frame at once, the film and its reference report as soon as the server has
// them. It goes when the page has drawn the same, or has something else to say.
(() => {
  const host = document.getElementById("cxr-first"), LONGEST = 30000
  const root = host.attachShadow({ mode: "closed" })
  root.append(host.querySelector("template").content)

  const gone = () => host.remove()
  const inside = (what) => [...document.querySelectorAll(".stMain *")].some((each) => each.shadowRoot?.querySelector(what))
  const began = performance.now()
  let ran = false
  const look = () => {
    const state = document.querySelector('[data-testid="stApp"]')?.getAttribute("data-test-script-state")
    ran ||= state === "running"
    const stands = document.querySelector(".st-key-rail") && inside(".viewer") && inside("article.reference")
    if (stands || (ran && state === "notRunning") || document.querySelector(".stAlert") || performance.now() - began > LONGEST) gone()
    else setTimeout(look, 50)
  }
  look()

  const tell = async (told) => {
    const film = new Image()
    film.alt = told.title
    film.src = told.film
    await film.decode()
    root.querySelector(".film").append(film)
    root.querySelector(".facts").textContent = told.title
    root.querySelector(".sections").replaceChildren(...told.sections.map(([name, text]) => {
      const paragraph = document.createElement("p"), title = document.createElement("small")
      title.textContent = name
      paragraph.append(title, text)
      return paragraph
    }))
  }
  // Two frames later it is on the screen.
  const shown = () => requestAnimationFrame(() => requestAnimationFrame(() => { host.dataset.shown = performance.now().toFixed(0) }))
  const there = document.getElementById("cxr-told")?.textContent
  const coming = there ? Promise.resolve(JSON.parse(there)) : fetch("./_cxr/first.json").then((answer) => answer.json())
  coming.then((told) => told && tell(told).then(shown)).catch(() => {})
})()
