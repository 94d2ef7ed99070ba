// What several tests need.
import { Memory } from "../../dashboard/components/frontend/reading/storage.js"

// A browser's storage, which is still there when a page is closed.
export function durable() {
  return Object.assign(new Memory(), { forgets: false })
}

export function wholeText({ text }) {
  return [0, Array.from(text).length]
}

// Random numbers that are the same in every run: mulberry32, https://gist.github.com/tommyettinger/46a874533244883189143505d203312c
export function randomly(seed) {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}
