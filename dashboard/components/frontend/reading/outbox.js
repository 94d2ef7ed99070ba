// What a reader did and the server has not yet said to be stored, in order. It is kept in the browser's storage, a tab
// under a name of its own; what a closed tab left behind is taken over by the next tab of the same reader and session.
import { browserStorage, namesIn } from "./storage.js"

const ALIVE = 6000 // ms since a tab last kept its outbox until it counts as closed
const OWN = /^[0-9a-f]{32}$/ // a reader's name may have a slash: what follows it is no outbox of the reader before it

// 32 hexadecimal digits that nobody else has.
export function fresh() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("")
}

function parsed(text) {
  try {
    const left = JSON.parse(text)
    return Array.isArray(left?.changes) ? left : null
  } catch {
    return null
  }
}

export class Outbox {
  constructor(session, reader, { storage = browserStorage("localStorage"), now = Date.now } = {}) {
    this.storage = storage
    this.now = now
    this.prefix = `cxr-lens-outbox/${session}/${reader}/`
    this.own = this.prefix + fresh()
    this.changes = []
    this.slots = new Map() // key of the change that made a mark -> its slot
    this.adopt()
  }

  // Whether what waits is still there after the page is closed.
  get survives() {
    return !this.changes.length || (this.kept && !this.storage.forgets)
  }

  get first() {
    return this.changes[0] ?? null
  }

  // Take over what closed tabs left.
  adopt() {
    for (const name of namesIn(this.storage)) {
      if (name === this.own || !name.startsWith(this.prefix) || !OWN.test(name.slice(this.prefix.length))) continue
      const left = parsed(this.storage.getItem(name))
      if (!left || this.now() - left.at < ALIVE) continue // it cannot be read, or that tab is alive
      const known = new Set(this.changes.map(({ key }) => key))
      this.changes.push(...left.changes.filter(({ key }) => !known.has(key)))
      this.storage.removeItem(name)
    }
    this.keep()
  }

  // Called each second while something waits, which says that this tab is alive; ``at`` 0 says that it is not.
  keep(at = this.now()) {
    try {
      if (this.changes.length) this.storage.setItem(this.own, JSON.stringify({ at, changes: this.changes }))
      else this.storage.removeItem(this.own)
      this.kept = true
    } catch {
      this.kept = false // storage is full: the change is still in memory and is sent all the same
    }
  }

  add(fields) {
    const change = { key: fresh(), ...fields }
    this.changes.push(change)
    this.keep()
    return change
  }

  // The first change is done with; ``ack`` is what the server said of it. What was made upon it goes on from there, also
  // in the tab that may take over: else a second key within the time of saving were a conflict with the first.
  /** @param {{status?: string, slot?: string, version?: number}} ack */
  shift(ack = {}) {
    const done = this.changes.shift()
    if (ack.slot) this.slots.set(done.key, ack.slot)
    if (ack.status === "saved") for (const change of this.changes) follow(change, done, ack)
    this.keep()
    return done
  }
}

function follow(change, done, ack) {
  const { slot, version } = ack
  if (slot && change.of === done.key) {
    Object.assign(change, { slot, version })
    delete change.of
  } else if (change.slot && change.slot === done.slot && change.version === done.version) {
    change.version = version
  } else if (done.do === "undo" && change.screen === done.screen) {
    delete change.version // whatever was undone: as it is when its turn comes
  }
}
