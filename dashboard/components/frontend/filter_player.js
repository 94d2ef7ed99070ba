// CCVE's filters as tiles with bars, played through the words of a report. Every word's attention came with the data;
// the server hears only where a reader stopped, and which tile was chosen.

import { make } from "./dom.js"

const states = new WeakMap()
const SIDES = ["trained", "untrained"]

const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`

// Gain by frequency as a line; the faint line is 1: the image passes unchanged.
function curve(sides, index) {
  const name = "http://www.w3.org/2000/svg"
  const svg = document.createElementNS(name, "svg")
  svg.setAttribute("viewBox", "0 0 100 26")
  svg.setAttribute("preserveAspectRatio", "none")
  svg.setAttribute("class", "curve")
  svg.setAttribute("role", "img")
  const y = (gain) => 25 - 12 * Math.min(gain, 2)
  const line = (points, className) => {
    const path = document.createElementNS(name, "polyline")
    path.setAttribute("points", points.map(([a, b]) => `${a.toFixed(1)},${b.toFixed(1)}`).join(" "))
    path.setAttribute("class", className)
    svg.append(path)
  }
  line([[0, y(1)], [100, y(1)]], "one")
  sides.toReversed().forEach(({ responses }, place) => {
    const gains = responses[index]
    const which = sides.length - 1 - place
    line(gains.map((gain, at) => [(100 * at) / (gains.length - 1), y(gain)]), SIDES[which])
  })
  const gains = sides[0].responses[index]
  const label = `Keeps ${percent(gains[0])} of coarse detail, ${percent(gains.at(-1))} of fine detail`
  svg.setAttribute("aria-label", label)
  const title = document.createElementNS(name, "title")
  title.textContent = label
  svg.append(title)
  return svg
}

function bar(side) {
  const fill = make("i")
  const tick = make("b")
  const even = make("s", { title: "An even share" })
  const number = make("span", { className: "number" })
  const row = make("div", { className: `bar ${SIDES[side]}` }, make("div", { className: "track" }, fill, even, tick), number)
  return { row, fill, even, tick, number }
}

function tile(data, index, send) {
  const name = data.names[index]
  const pictures = make("div", { className: "pictures" })
  data.sides.forEach((side, which) => {
    const what = `Radiograph through the ${SIDES[which]} filter of ${name}`
    const caption = data.sides.length > 1 ? [make("small", { text: SIDES[which] })] : []
    pictures.append(make("span", {}, make("img", { src: side.images[index], alt: what }), ...caption))
  })
  const bars = data.sides.map((_, which) => bar(which))
  const button = make(
    "button",
    { className: "tile", type: "button", "aria-pressed": String(name === data.chosen), "aria-label": `Filter ${name}` },
    make("span", { className: "name", text: name }),
    pictures,
    ...bars.map(({ row }) => row),
    curve(data.sides, index),
    make("small", { className: "note", text: data.notes[index] }),
  )
  if (data.off[index]) button.append(make("span", { className: "off", text: "off" }))
  button.onclick = () => send("filter", name)
  return { button, bars }
}

function build(root, data, state, send) {
  const words = data.words.map((word, place) => {
    const button = make("button", { className: "word", type: "button", text: word, tabindex: -1 })
    button.onclick = () => go(state, place, true)
    return button
  })
  const text = make("p", { className: "report", "aria-label": "The report, word by word" })
  words.forEach((word, place) => text.append(/^[.,;:)]$/.test(data.words[place]) || !place ? "" : " ", word))

  const control = (label, sign, action) => {
    const button = make("button", { type: "button", "aria-label": label, title: label, text: sign })
    button.onclick = action
    return button
  }
  const play = control("Play", "▶", () => toggle(state))
  const slider = make("input", {
    type: "range", min: -1, max: data.words.length - 1, step: 1, "aria-label": "Word of the report",
  })
  slider.oninput = () => go(state, Number(slider.value), true)
  const speed = make("select", { "aria-label": "Words a second", title: "Words a second" })
  for (const each of [1, 2, 4]) speed.append(make("option", { value: each, text: `${each} / s` }))
  speed.value = state.speed
  speed.onchange = () => {
    state.speed = Number(speed.value)
    if (state.timer) start(state)
  }
  const where = make("output", { className: "where" })
  const transport = make(
    "div",
    { className: "transport", role: "group", "aria-label": "Play through the words" },
    control("Word before (left arrow)", "◀", () => go(state, state.place - 1, true)),
    play,
    control("Next word (right arrow)", "▶▏", () => go(state, state.place + 1, true)),
    slider,
    control("All words: the summary (Escape)", "Σ", () => go(state, -1, true)),
    speed,
    where,
  )
  const tiles = data.names.map((_, index) => tile(data, index, send))
  const before = make(
    "div", { className: "tile input" }, make("span", { className: "name", text: "Before the filters" }),
    make("div", { className: "pictures" }, make("span", {}, make("img", { src: data.image, alt: "Radiograph before the filters" }))),
  )
  const grid = make(
    "div", { className: data.sides.length > 1 ? "tiles pairs" : "tiles" }, before, ...tiles.map(({ button }) => button),
  )
  root.replaceChildren(transport, text, grid)
  Object.assign(state, { words, play, slider, where, tiles, data, send })
  root.onkeydown = (event) => {
    if (event.target.tagName === "SELECT" || event.ctrlKey || event.metaKey || event.altKey) return
    const onButton = event.target.tagName === "BUTTON"
    const moves = {
      ArrowLeft: () => go(state, state.place - 1, true),
      ArrowRight: () => go(state, state.place + 1, true),
      Home: () => go(state, 0, true),
      End: () => go(state, data.words.length - 1, true),
      Escape: () => go(state, -1, true),
      ...(onButton ? {} : { " ": () => toggle(state) }),
    }
    if (!(event.key in moves)) return
    event.preventDefault()
    event.stopPropagation()
    moves[event.key]()
  }
}

function draw(state) {
  const { data, place } = state
  const most = Math.max(...data.sides.flatMap((side) => [...side.summary, ...side.words.flat()]), 1 / data.names.length)
  data.names.forEach((_, index) => {
    data.sides.forEach((side, which) => {
      const { fill, even, tick, number } = state.tiles[index].bars[which]
      const share = place < 0 ? side.summary[index] : side.words[place][index]
      fill.style.width = `${(100 * share) / most}%`
      even.style.left = `${100 / data.names.length / most}%`
      tick.style.left = `${(100 * side.summary[index]) / most}%`
      tick.hidden = place < 0
      number.textContent = percent(share)
    })
  })
  state.words.forEach((word, each) => word.classList.toggle("now", each === place))
  state.slider.value = place
  state.slider.setAttribute("aria-valuetext", place < 0 ? data.summary : data.words[place])
  const shares = place < 0 ? data.sides[0].summary : data.sides[0].words[place]
  const first = shares.indexOf(Math.max(...shares))
  const what = place < 0 ? data.summary : `Word ${place + 1} of ${data.words.length}: “${data.words[place]}”`
  const even = percent(1 / data.names.length)
  state.where.textContent = `${what} · most: ${data.names[first]}, ${percent(shares[first])} (even share ${even})`
  state.where.setAttribute("aria-live", state.timer ? "off" : "polite")
}

function go(state, place, byHand) {
  if (byHand) stop(state)
  state.place = Math.min(Math.max(place, -1), state.data.words.length - 1)
  draw(state)
  if (byHand) tell(state)
}

// A reader who steps quickly is waited for.
function tell(state) {
  clearTimeout(state.telling)
  state.telling = setTimeout(() => state.send("word", state.place), 600)
}

function start(state) {
  clearInterval(state.timer)
  if (state.place >= state.data.words.length - 1) go(state, -1, false)
  state.timer = setInterval(() => {
    if (state.place >= state.data.words.length - 1) {
      stop(state)
      tell(state)
    } else go(state, state.place + 1, false)
  }, 1000 / state.speed)
  showPlaying(state)
}

function stop(state) {
  clearInterval(state.timer)
  state.timer = null
  showPlaying(state)
}

function toggle(state) {
  if (state.timer) {
    stop(state)
    draw(state)
    tell(state)
  } else start(state)
}

function showPlaying(state) {
  const text = state.timer ? "Pause" : "Play"
  state.play.textContent = state.timer ? "❚❚" : "▶"
  state.play.setAttribute("aria-label", text)
  state.play.title = text
}

export default function mount(component) {
  const { data, parentElement, setStateValue } = component
  const root = parentElement.querySelector(".player")
  let state = states.get(parentElement)
  if (!state || state.shown !== data.shown) {
    if (state) clearInterval(state.timer)
    clearTimeout(state?.telling)
    state = { shown: data.shown, place: data.word, speed: state?.speed ?? 2, timer: null }
    states.set(parentElement, state)
  }
  state.place = Math.min(state.place, data.words.length - 1)
  const active = root.contains(root.getRootNode().activeElement) ? root.getRootNode().activeElement.getAttribute("aria-label") : null
  build(root, data, state, setStateValue)
  showPlaying(state)
  draw(state)
  // What had the focus has it again after the page was drawn anew.
  if (active) root.querySelector(`[aria-label="${CSS.escape(active)}"]`)?.focus({ preventScroll: true })
  return () => {
    clearInterval(state.timer)
    clearTimeout(state.telling)
    states.delete(parentElement)
  }
}
