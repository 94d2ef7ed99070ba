// How a text is typed: bouts of keys with their pauses, in durations of a clock that nobody sets. The server checks them again.
import { fresh } from "./outbox.js"

const PAUSE = 2 // seconds without a key that are a pause
const BREAK = 600 // and a break: typing goes on in a bout of its own
const LONGEST = 4 * 3600 // seconds before the first key that are told
const MOST_PAUSES = 500

// [characters taken out, characters put in] from one text to another.
export function changed(before, after) {
  const most = Math.min(before.length, after.length)
  let start = 0
  while (start < most && before[start] === after[start]) start++
  let end = 0
  while (end < most - start && before.at(-1 - end) === after.at(-1 - end)) end++
  return [before.length - start - end, after.length - start - end]
}

const rounded = (milliseconds) => Math.round(milliseconds / 10) / 100

export class Typing {
  constructor(now = () => performance.now()) {
    this.now = now
    this.open()
  }

  // A text is shown, and nothing of it typed yet.
  open() {
    this.opened = this.now()
    this.bout = null
  }

  // One text became another, by a key, by dictation or by pasting.
  key(before, after) {
    const at = this.now()
    if (this.bout && at - this.last > BREAK * 1000) this.bout = null
    if (!this.bout) {
      const waited = this.opened === null ? 0 : Math.min(rounded(at - this.opened), LONGEST)
      this.bout = { id: fresh(), before: waited, seconds: 0, inserted: 0, deleted: 0, pauses: [] }
      this.first = this.last = at
      this.opened = null
    }
    const { bout } = this
    if (at - this.last >= PAUSE * 1000 && bout.pauses.length < MOST_PAUSES) {
      bout.pauses.push([rounded(this.last - this.first), rounded(at - this.last)])
    }
    const [deleted, inserted] = changed(before, after)
    bout.deleted += deleted
    bout.inserted += inserted
    bout.seconds = rounded(at - this.first)
    this.last = at
  }

  // The bout as it is now; null before the first key.
  told() {
    return this.bout && { ...this.bout, pauses: this.bout.pauses.map((pause) => [...pause]) }
  }
}
