// Time in which a reader reads: it stands still without a key or a move.

const IDLE = 60 // seconds
const LONGEST = 5 // seconds that one call counts: after a computer slept it is not all reading

export class ReadingClock {
  constructor(now = () => performance.now()) {
    this.now = now
    this.active = 0 // seconds not yet told
    this.touched = this.counted = now()
  }

  touch() {
    this.touched = this.now()
  }

  // What passed until now does not count.
  skip() {
    this.counted = this.now()
  }

  // Count the time since the last call, if it was read.
  count(isReading) {
    const now = this.now()
    if (isReading && now - this.touched < IDLE * 1000) this.active += Math.min((now - this.counted) / 1000, LONGEST)
    this.counted = now
  }

  // Seconds to tell, to a tenth; they are counted from 0 again.
  take() {
    const seconds = Math.round(this.active * 10) / 10
    if (seconds) this.active = 0
    return seconds
  }
}

// "m:ss"
export function minutes(seconds) {
  const whole = Math.max(0, Math.round(seconds))
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`
}
