// How a text is typed, in durations.
import assert from "node:assert/strict"
import { describe, test } from "node:test"
import { Typing, changed } from "../../dashboard/components/frontend/reading/typing.js"

test("what is taken out and put in, from one text to another", () => {
  assert.deepEqual(changed("", "abc"), [0, 3])
  assert.deepEqual(changed("abc", "abxc"), [0, 1])
  assert.deepEqual(changed("aaa", "aa"), [1, 0])
  assert.deepEqual(changed("left lung", "right lung"), [3, 4])
  assert.deepEqual(changed("same", "same"), [0, 0])
})

describe("a bout", () => {
  const typed = (script) => {
    let at = 1000
    const typing = new Typing(() => at)
    let text = ""
    const key = (seconds, letters = "x") => {
      at += seconds * 1000
      typing.key(text, text + letters)
      text += letters
    }
    script(key, typing, (seconds) => (at += seconds * 1000))
    return typing.told()
  }

  test("goes from the first key to the last; two seconds without one are a pause", () => {
    const bout = typed((key) => {
      key(4)
      key(0.5)
      key(3)
      key(1.9)
    })
    assert.match(bout.id, /^[0-9a-f]{32}$/)
    assert.deepEqual({ ...bout, id: "" }, { id: "", before: 4, seconds: 5.4, inserted: 4, deleted: 0, pauses: [[0.5, 3]] })
  })

  test("without a key there is none", () => assert.equal(typed(() => {}), null))

  test("after a break of over ten minutes another begins", () => {
    let first
    const bout = typed((key, typing) => {
      key(1)
      key(1)
      first = typing.told()
      key(601)
      key(2)
    })
    assert.notEqual(bout.id, first.id)
    assert.deepEqual([first.seconds, bout.seconds, bout.before, bout.inserted], [1, 2, 0, 2])
  })

  test("a clock that is set back is told as it is: the server does not count it", () => {
    const bout = typed((key, typing, pass) => {
      key(5)
      pass(-10)
      key(1)
    })
    assert.ok(bout.seconds < 0)
  })
})
