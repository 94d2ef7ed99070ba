// Studies as small cards, each a link to the Read page. Text goes in as text, never as markup.
import { make } from "./dom.js"
import { followLinks } from "./links.js"

const mounted = new WeakMap()

function card({ id, picture, note, findings, report, address }) {
  const words = make("span", {}, make("b", { text: id }), " ", make("small", { text: note }), make("br"), findings)
  if (report) words.append(make("br"), make("small", { text: report }))
  const image = picture
    ? make("img", { alt: `Radiograph ${id}`, src: `data:image/jpeg;base64,${picture}` })
    : make("span", { text: "No image" })
  return make("a", { href: `./?${address}`, target: "_self", title: `Open ${id} on the Read page` }, image, words)
}

export default function mount(component) {
  const { data, parentElement, setTriggerValue } = component
  const root = parentElement.querySelector(".cxr-cards")
  let known = mounted.get(parentElement)
  if (!known) {
    known = { events: new AbortController(), text: "" }
    mounted.set(parentElement, known)
    followLinks(root, (query) => known.open(query), known.events.signal)
  }
  known.open = (query) => setTriggerValue("open", query)
  const text = JSON.stringify(data.cards)
  if (text !== known.text) {
    known.text = text
    root.classList.toggle("wide", data.cards.some(({ report }) => report))
    root.replaceChildren(...data.cards.map(card))
  }
  return () => {
    known.events.abort()
    mounted.delete(parentElement)
  }
}
