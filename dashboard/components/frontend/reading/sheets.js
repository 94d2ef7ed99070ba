// What lies over the page until it is closed: the keys, the instructions, the end, the end of the reader's time.
import { make } from "../dom.js"
import { KEYS } from "./keys.js"

const SHEETS = { help, instructions, end, time, pause, feedback }

// Elements of a sheet; ``words`` are the server's, of the sheet "time".
export function sheetOf(page, what, words) {
  return SHEETS[what](page, words)
}

function help({ kind: of, data, editor }) {
  const kind = editor.question ? "edit" : of
  const titles = { [kind]: "Answer", always: "Case", image: "Image" }
  const own = data.questions.filter(({ key }) => key).map(({ key, ask }) => [key.toUpperCase(), ask])
  const columns = Object.entries(titles).map(([name, title]) => {
    const keys = [...KEYS[name], ...(name === kind ? own : [])].flatMap(([key, does]) => [make("dt", {}, make("kbd", { text: key })), make("dd", { text: does })])
    return make("section", {}, make("h3", { text: title }), make("dl", {}, ...keys))
  })
  return [make("h2", { text: "Keys" }), make("div", { className: "keys-columns" }, ...columns)]
}

function instructions({ data }) {
  const minutes = Math.round(data.seconds_left / 60)
  const left = minutes === 1 ? "1 minute" : `${minutes} minutes`
  const cases = data.places.length - (data.practice ?? 0)
  const limit = data.seconds_left === null ? "" : ` You have ${left} of reading time; it runs only while you read.`
  return [
    make("h2", { text: data.title }),
    make("p", { className: "instructions", text: data.instructions || "There are no special instructions." }),
    make("p", { text: data.question }),
    make("p", {
      text: `${data.sitting && `${data.sitting}: `}${data.practice ? `First ${data.practice} for practice: you are told what was expected. Then ` : ""}` +
        `${cases === 1 ? "1 case" : `${cases} cases`}.${limit} Every mark is saved at once; you can stop at any time and go on later, ` +
        "on another machine too. Press ? for the keys.",
    }),
  ]
}

function end(page) {
  const { data } = page
  const states = page.data.places.slice(page.data.practice ?? 0).map((place) => page.stateOf(place))
  const count = (wanted) => states.filter(([state]) => state === wanted).length
  const open = count("pending")
  const flagged = states.filter(([, each]) => each).length
  const next = !page.data.open ? "The session is closed."
    : !open && data.following ? data.following
    : open ? "G goes to the first case that is not read."
    : "You can go back and change answers until the session is closed."
  return [
    make("h2", { text: open ? "This is the last case" : "All cases are read. Thank you." }),
    make("p", { text: `${count("done")} done, ${count("skipped")} skipped, ${open} not read, ${flagged} flagged.` }),
    make("p", { text: next }),
  ]
}

// Of a practice case: what was expected, beside what the reader answered.
function feedback(page) {
  const { feedback: rows, why } = page.view()
  const table = make("table", { className: "feedback" }, make("tr", {}, ...["", "Expected", "You"].map((text) => make("th", { text }))),
    ...rows.map(({ asked, expected, given, right }) => make("tr", { "data-right": String(right) },
      make("td", { text: asked }), make("td", { text: expected }), make("td", { text: `${right ? "✓" : "✗"} ${given || "no answer"}` }))))
  return [
    make("h2", { text: "Practice: what was expected" }),
    ...(rows.length ? [table] : []),
    ...(why ? [make("p", { className: "instructions", text: why })] : []),
    make("p", { text: "Practice cases count nowhere." }),
  ]
}

function pause() {
  return [
    make("h2", { text: "A break" }),
    make("p", { text: "The time stands still, and everything is saved. Go on whenever you like; you can also close the page." }),
  ]
}

function time(_, words) {
  return [
    make("h2", { text: "Your time is over" }),
    make("p", { text: words }),
    make("p", { text: "You can still finish and change the cases that you opened." }),
  ]
}
