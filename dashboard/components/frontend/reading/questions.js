// What a case asks of its reader, by the kind of marks that answer it.

// Observations in the order of the table: of a third reader the disputed first.
export function observationsOf(names, view) {
  const isDisputed = (name) => Boolean(view?.disputed.some(({ question }) => question === name))
  return [...names.filter(isDisputed), ...names.filter((name) => !isDisputed(name))]
}

// Whether a third reader has answered what is disputed: by an own mark of it, or by a number.
export function isSettled({ report, question }, kind, marks) {
  return marks.some(({ kind: of, report: name, value }) => {
    if (of === "count") return name === report && value.question === question
    if (kind === "error") return name === report && value.error === question
    if (kind === "label") return value.observation === question
    return kind === "preference" || (name === report && value.span.join("-") === question)
  })
}

// What is not answered yet, in words; "" if nothing is. A third reader answers only what is disputed.
export function missing(kind, view, observations) {
  if (kind === "error") {
    return view.disputed.filter((each) => !isSettled(each, kind, view.marks)).map(({ words }) => words).join(", ")
  }
  if (kind === "preference") return view.marks.length ? "" : "which report you prefer"
  if (kind === "label") {
    const asked = view.disputed.length ? view.disputed.map(({ question }) => question) : observations
    const left = asked.filter((name) => !view.marks.some((mark) => mark.value.observation === name))
    return left.length > 4 ? `${left.length} observations` : left.join(", ")
  }
  if (kind === "helpfulness" && view.disputed.length) {
    const isAnswered = ({ report, question }) =>
      view.marks.some((mark) => mark.report === report && mark.value.span.join("-") === question)
    return view.disputed.filter((each) => !isAnswered(each)).map(({ words }) => words).join(", ")
  }
  if (kind === "helpfulness") {
    return view.reports.filter(({ name }) => !view.marks.some((mark) => mark.report === name)).map(({ name }) => `report ${name}`).join(", ")
  }
  return ""
}

// What is chosen when a case opens: the first sentence or observation; of a third reader the first that is disputed.
export function firstChoice(kind, view, observations) {
  const chosen = { report: 0, sentence: 0, words: null, row: 0, mark: null }
  const asked = view?.disputed[0]
  if (asked && kind === "label") chosen.row = Math.max(observationsOf(observations, view).indexOf(asked.question), 0)
  if (asked && kind === "error") chosen.dispute = 0
  if (asked && kind === "helpfulness") {
    chosen.report = Math.max(view.reports.findIndex(({ name }) => name === asked.report), 0)
    const { sentences } = view.reports[chosen.report]
    chosen.sentence = Math.max(sentences.findIndex((span) => span.join("-") === asked.question), 0)
  }
  return chosen
}
