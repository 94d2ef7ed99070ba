// Words of a report's sentences and which of them are chosen. Positions are characters of the text, as in Python, not UTF-16
// units; a span is [start, end).

// Letters and digits; inside also an apostrophe, a hyphen, and the point or comma of a number.
const WORD = /[\p{L}\p{M}\p{N}_]+(?:['’-][\p{L}\p{M}\p{N}_]+|(?<=\p{N})[.,]\p{N}+)*/gu

// The characters of a span.
export function textOf(text, span) {
  return Array.from(text).slice(...span).join("")
}

// Span of each word of a sentence.
export function wordsOf(text, sentence) {
  const written = textOf(text, sentence)
  return Array.from(written.matchAll(WORD), ({ index, 0: word }) => {
    const start = sentence[0] + Array.from(written.slice(0, index)).length
    return [start, start + Array.from(word).length]
  })
}

// Span of the chosen words, [first, last], or of the sentence without a choice.
export function spanOf(sentence, words, chosen) {
  return chosen ? [words[chosen[0]][0], words[chosen[1]][1]] : [...sentence]
}

// A sentence cut where a word or a marked span begins or ends.
export function piecesOf(sentence, words, spans) {
  const [start, end] = sentence
  const cuts = new Set([...words, ...spans].flat().filter((cut) => cut > start && cut < end))
  const edges = [start, ...[...cuts].sort((a, b) => a - b), end]
  return edges.slice(1).map((edge, index) => [edges[index], edge])
}

/** @param {number[]} piece @param {number[]} span */
export function within([start, end], span) {
  return start >= span[0] && end <= span[1]
}

// The choice after an arrow key, ``by`` -1 or 1, among words 0 to ``last``; extended it grows. Off the edge is the sentence: null.
export function chosenByKey(chosen, by, extend, last) {
  if (!chosen) return by > 0 ? [0, 0] : [last, last]
  const clip = (word) => Math.min(Math.max(word, 0), last)
  const [first, final] = chosen
  if (extend) return by > 0 ? [first, clip(final + 1)] : [clip(first - 1), final]
  const next = by > 0 ? final + 1 : first - 1
  return next < 0 || next > last ? null : [next, next]
}

// The choice after a click on a word; on the only chosen one it is the sentence again: null.
export function chosenByClick(chosen, word, extend) {
  if (extend && chosen) return [Math.min(chosen[0], word), Math.max(chosen[1], word)]
  return chosen?.[0] === word && chosen[1] === word ? null : [word, word]
}

// All sentences of all reports in one line, as [report, sentence]; where ``whole`` reports can be chosen, -1 comes first.
export function stopsOf(reports, whole) {
  return reports.flatMap((report, at) => [...(whole ? [[at, -1]] : []), ...report.sentences.map((_, number) => [at, number])])
}

// The stop that is ``by`` further, none beyond the ends.
export function stepped(stops, [report, sentence], by) {
  const here = stops.findIndex((stop) => stop[0] === report && stop[1] === sentence)
  return stops[Math.min(Math.max(here + by, 0), stops.length - 1)]
}
