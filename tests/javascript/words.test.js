// Words of sentences, and what keys and clicks choose.
import assert from "node:assert/strict"
import { test } from "node:test"
import {
  chosenByClick, chosenByKey, piecesOf, spanOf, stepped, stopsOf, textOf, within, wordsOf,
} from "../../dashboard/components/frontend/reading/words.js"
import { randomly, wholeText } from "./helpers.js"

const words = (text, span = wholeText({ text })) => wordsOf(text, span).map((each) => textOf(text, each))

test("words are what a reader would mark", () => {
  assert.deepEqual(words("There is a small left-sided effusion."), ["There", "is", "a", "small", "left-sided", "effusion"])
  assert.deepEqual(words("A 1.5 cm nodule, 1,5 cm before."), ["A", "1.5", "cm", "nodule", "1,5", "cm", "before"])
  assert.deepEqual(words("The patient’s heart - the patient's heart."), ["The", "patient’s", "heart", "the", "patient's", "heart"])
  assert.deepEqual(words("XXXX 3. No pneumothorax"), ["XXXX", "3", "No", "pneumothorax"])
  assert.deepEqual(words("épanchement e\u0301panchement"), ["épanchement", "e\u0301panchement"])
  assert.deepEqual(words(" ... – "), [])
  assert.deepEqual(words("Lungs are <b>clear</b>."), ["Lungs", "are", "b", "clear", "b"])
})

test("positions are characters of the text, as in Python, not UTF-16 units", () => {
  const text = "🫁 clear. 🫀 normal size."
  assert.deepEqual(wordsOf(text, [0, 8]), [[2, 7]])
  assert.deepEqual(wordsOf(text, [9, 23]), [[11, 17], [18, 22]])
  assert.equal(textOf(text, [11, 17]), "normal")
})

test("only words of the sentence are found, at their place in the report", () => {
  const text = "The heart is large. The lungs are clear."
  assert.deepEqual(words(text, [20, 40]), ["The", "lungs", "are", "clear"])
  assert.deepEqual(wordsOf(text, [20, 40])[0], [20, 23])
})

test("of any text words are in order, apart from each other, and none is empty or has a space", () => {
  const letters = Array.from("abÉ1.,'’- 🫁\u0301<_")
  const random = randomly(1)
  for (let round = 0; round < 500; round++) {
    const text = Array.from({ length: 25 }, () => letters[Math.floor(random() * letters.length)]).join("")
    const found = wordsOf(text, wholeText({ text }))
    found.forEach(([start, end], at) => {
      assert.ok(start < end && start >= (found[at - 1]?.[1] ?? 0), text)
      assert.doesNotMatch(textOf(text, [start, end]), /[\s<]/u)
    })
    const left = Array.from(text).filter((_, at) => !found.some((span) => within([at, at + 1], span)))
    assert.doesNotMatch(left.join(""), /[\p{L}\p{N}]/u, text) // no letter is outside all words
  }
})

test("pieces join to the sentence and no edge of a word or mark is inside one", () => {
  const text = "There is a small left effusion."
  const sentence = wholeText({ text })
  const marks = [[9, 16], [11, 21]]
  const pieces = piecesOf(sentence, wordsOf(text, sentence), [...marks, []])
  assert.equal(pieces.map((span) => textOf(text, span)).join(""), text)
  for (const edge of [9, 11, 16, 21]) assert.ok(pieces.some(([start]) => start === edge))
  assert.deepEqual(piecesOf([3, 9], [], [[0, 20]]), [[3, 9]]) // a mark that covers more than the sentence
})

test("the chosen words are one span, without a choice the sentence", () => {
  const found = [[0, 5], [6, 8], [9, 10]]
  assert.deepEqual(spanOf([0, 11], found, [1, 2]), [6, 10])
  assert.deepEqual(spanOf([0, 11], found, null), [0, 11])
})

test("arrow keys choose a word, with Shift several, and off the edge the sentence again", () => {
  const keys = (steps, last) => steps.reduce((chosen, [by, extend]) => chosenByKey(chosen, by, extend, last), null)
  const [right, left, more, before] = [[1, false], [-1, false], [1, true], [-1, true]]
  assert.deepEqual(keys([right], 4), [0, 0])
  assert.deepEqual(keys([left], 4), [4, 4])
  assert.deepEqual(keys([right, right, more, more], 4), [1, 3])
  assert.deepEqual(keys([right, right, more, more, right], 4), [4, 4])
  assert.deepEqual(keys([right, right, more, left], 4), [0, 0])
  assert.deepEqual(keys([left, more, more], 4), [4, 4]) // there is no sixth word
  assert.deepEqual(keys([right, right, before, before], 4), [0, 1])
  assert.equal(keys([right, left], 4), null)
  assert.equal(keys([left, right], 4), null)
  assert.equal(keys([right, right], 0), null)
})

test("a click chooses a word, with Shift up to it, and again the sentence", () => {
  assert.deepEqual(chosenByClick(null, 3, false), [3, 3])
  assert.deepEqual(chosenByClick([3, 3], 1, true), [1, 3])
  assert.deepEqual(chosenByClick([1, 3], 5, true), [1, 5])
  assert.deepEqual(chosenByClick([1, 3], 3, false), [3, 3])
  assert.equal(chosenByClick([3, 3], 3, false), null)
})

test("sentences of all reports stand in one line, each report as a whole before its own", () => {
  const reports = [{ sentences: [[0, 5], [6, 9]] }, { sentences: [] }, { sentences: [[0, 3]] }]
  const stops = stopsOf(reports, true)
  assert.deepEqual(stops, [[0, -1], [0, 0], [0, 1], [1, -1], [2, -1], [2, 0]])
  assert.deepEqual(stopsOf(reports, false), [[0, 0], [0, 1], [2, 0]])
  assert.deepEqual(stepped(stops, [0, 1], 1), [1, -1])
  assert.deepEqual(stepped(stops, [0, -1], -1), [0, -1])
  assert.deepEqual(stepped(stops, [2, 0], 1), [2, 0])
})
