// What the browser keeps. Where keeping is forbidden there is a stand-in that forgets when the page is closed.

export class Memory {
  forgets = true
  items = new Map()

  get length() {
    return this.items.size
  }

  key(index) {
    return [...this.items.keys()][index] ?? null
  }

  getItem(name) {
    return this.items.get(name) ?? null
  }

  setItem(name, text) {
    this.items.set(name, String(text))
  }

  removeItem(name) {
    this.items.delete(name)
  }
}

// "localStorage" or "sessionStorage".
export function browserStorage(kind) {
  try {
    return globalThis[kind] ?? new Memory()
  } catch {
    return new Memory()
  }
}

export function namesIn(storage) {
  return Array.from({ length: storage.length }, (_, index) => storage.key(index))
}
