// Grey levels, geometry, ruler, colours and what the server packed: known answers.
import assert from "node:assert/strict"
import { describe, test } from "node:test"
import { HEAT, SIGNED, ofHex, tint } from "../../dashboard/components/frontend/viewer/colours.js"
import { nudged, onImage, panelsOf, placed, rectangle, zoomed } from "../../dashboard/components/frontend/viewer/geometry.js"
import {
  brightness, develop, dragged, inUnits, presetWindows, quantile, wideInUnits, windowsOf,
} from "../../dashboard/components/frontend/viewer/grey_levels.js"
import { unpack } from "../../dashboard/components/frontend/viewer/packed.js"
import { contour } from "../../dashboard/components/frontend/viewer/pictures.js"
import { aboutRuler, distance, moved } from "../../dashboard/components/frontend/viewer/ruler.js"
import { lies, onPanel, turnedInWords, upright } from "../../dashboard/components/frontend/viewer/turning.js"
import { angle, measuredInWords, ratio } from "../../dashboard/components/frontend/viewer/two_lines.js"
import { randomly } from "./helpers.js"

const near = (found, wanted, by = 1e-9) =>
  found.forEach((value, at) => assert.ok(Math.abs(value - wanted[at]) <= by, `${found} is not ${wanted}`))

describe("grey levels", () => {
  test("a window runs from black to white around its level, all beyond is black or white", () => {
    const table = brightness(1000, { window: 200, level: 500, inverted: false })
    assert.deepEqual([0, 400, 500, 600, 1000].map((value) => table[value]), [0, 0, 128, 255, 255])
    const turned = brightness(1000, { window: 200, level: 500, inverted: true })
    assert.deepEqual([0, 400, 600, 1000].map((value) => turned[value]), [255, 255, 0, 0])
  })

  test("brightness never falls with the grey level, inverted it never rises, and both add up to white", () => {
    const random = randomly(2)
    for (let round = 0; round < 40; round++) {
      const view = { window: 1 + random() * 8000, level: (random() - 0.25) * 6000 }
      const [plain, turned] = [false, true].map((inverted) => brightness(4095, { ...view, inverted }))
      for (let value = 1; value <= 4095; value++) assert.ok(plain[value] >= plain[value - 1])
      plain.forEach((bright, value) => assert.ok(Math.abs(bright + turned[value] - 255) <= 1))
    }
  })

  test("quantiles of a ramp are its share, of pixels above the levels the highest level", () => {
    const ramp = Uint16Array.from({ length: 7 * 1000 }, (_, at) => Math.floor(at / 7))
    assert.equal(quantile(ramp, 999, 0.5), 499)
    assert.equal(quantile(ramp, 999, 1), 999)
    assert.equal(quantile(Uint16Array.of(70, 70, 70), 50, 0.5), 50)
  })

  test("presets: all grey levels, and windows that lie inside, at least one level wide", () => {
    const ramp = Uint16Array.from({ length: 7 * 1000 }, (_, at) => Math.floor(at / 7))
    assert.deepEqual(presetWindows(ramp, 999), [[999, 499.5], [940, 499], [590, 304], [595, 696.5]])
    for (const [window] of presetWindows(new Uint16Array(5000), 255)) assert.ok(window >= 1)
  })

  test("the file's own window comes first, and numbers are in the file's units", () => {
    const ramp = Uint16Array.from({ length: 7 * 1000 }, (_, at) => Math.floor(at / 7))
    const grey = { first: -1000, step: 2, window: [300, 100], inverse: false }
    const windows = windowsOf(ramp, { levels: 999, grey })
    assert.deepEqual([windows[0].name, windows[0].level, windows[0].window], ["File", 300, 100])
    assert.deepEqual(windows.slice(1).map(({ window, level }) => [window, level]), presetWindows(ramp, 999))
    assert.equal(windowsOf(ramp, { levels: 999, grey: null })[0].name, "Full")
    assert.deepEqual([inUnits(300, grey), wideInUnits(100, grey), inUnits(300, null)], [-400, 200, 300])
  })

  test("where small values are bright, dark parts are the large ones", () => {
    const ramp = Uint16Array.from({ length: 7 * 1000 }, (_, at) => Math.floor(at / 7))
    const [, , [window, level]] = presetWindows(ramp, 999, true)
    assert.ok(level + window / 2 > 980 && level - window / 2 > 390)
  })

  test("a drag to the right widens the window, up lowers the level, within bounds", () => {
    const levels = 6000
    assert.deepEqual(dragged({ window: 100, level: 50 }, 3, -2, levels), { window: 130, level: 30 })
    assert.deepEqual(dragged({ window: 100, level: 50 }, -1e4, 1e5, levels), { window: 1, level: 12000 })
    assert.deepEqual(dragged({ window: 100, level: 50 }, 1e5, -1e5, levels), { window: 12000, level: -6000 })
  })

  test("developed pixels are opaque grey", () => {
    const out = new Uint32Array(2)
    develop(Uint16Array.of(0, 1), Uint8ClampedArray.of(0, 0xab), out)
    assert.deepEqual([...out], [0xff000000, 0xffababab])
  })
})

describe("geometry", () => {
  const image = { width: 200, height: 100 }

  test("panels: one, two by two, then three across", () => {
    assert.deepEqual(panelsOf(0, 600, 400), { count: 1, columns: 1, rows: 1, across: 600, down: 400 })
    assert.deepEqual(panelsOf(2, 600, 400), { count: 2, columns: 2, rows: 1, across: 300, down: 400 })
    assert.deepEqual(panelsOf(4, 600, 400), { count: 4, columns: 2, rows: 2, across: 300, down: 200 })
    assert.deepEqual(panelsOf(5, 600, 400), { count: 5, columns: 3, rows: 2, across: 200, down: 200 })
    assert.deepEqual(panelsOf(7, 600, 600).down, 200)
  })

  test("panels: as many across as are wide enough on the screen, whatever its pixels", () => {
    for (const density of [1, 1.5, 2]) {
      for (let width = 60; width < 900; width += 7) {
        for (const count of [2, 3, 4, 5, 6, 9]) {
          const { columns, rows, across } = panelsOf(count, width * density, 300, density)
          assert.ok(columns === 1 || across / density >= 130, `${count} panels of ${across / density} on ${width}`)
          assert.ok(columns * rows >= count && columns * (rows - 1) < count)
        }
      }
    }
  })

  test("at zoom 1 the whole image is in the middle of its panel", () => {
    assert.deepEqual(placed(image, { across: 400, down: 400 }, { zoom: 1, shift: [0, 0] }), { fit: 2, scale: 2, middle: [200, 200], left: 0, top: 100 })
    assert.deepEqual(placed(image, { across: 100, down: 100 }, { zoom: 2, shift: [10, 0] }), { fit: 0.5, scale: 1, middle: [55, 50], left: -45, top: 0 })
  })

  test("zooming about a point leaves what is there where it is", () => {
    const random = randomly(3)
    const panel = { across: 380, down: 290 }
    for (let round = 0; round < 300; round++) {
      const view = { zoom: 1 + random() * 18, shift: [random() * 80 - 40, random() * 80 - 40] }
      const point = [random() * 380, random() * 290]
      const before = placed(image, panel, view)
      const next = zoomed(view, 0.6 + random() * 0.9, point, panel, before.fit)
      if (next.zoom === 1) assert.deepEqual(next.shift, [0, 0])
      else near(onImage(point, placed(image, panel, next)), onImage(point, before), 1e-6)
    }
  })

  test("zoom stays between 1 and 20, and zoomed out is back in place", () => {
    const panel = { across: 100, down: 100 }
    assert.equal(zoomed({ zoom: 15, shift: [0, 0] }, 9, [0, 0], panel, 1).zoom, 20)
    assert.deepEqual(zoomed({ zoom: 1.1, shift: [9, 9] }, 0.5, [3, 4], panel, 1), { zoom: 1, shift: [0, 0] })
  })

  test("a region has its corners in order, whichever way it is drawn; a click takes an eighth", () => {
    assert.deepEqual(rectangle([0.8, 0.2], [0.3, 0.7]), [0.3, 0.2, 0.8, 0.7])
    assert.deepEqual(rectangle([0.5, 0.5], [0.505, 0.495]), [0.4375, 0.4375, 0.5625, 0.5625])
    assert.deepEqual(rectangle([0.5, 0.5], [0.505, 0.7]), [0.5, 0.5, 0.505, 0.7]) // narrow, but drawn
  })

  test("by keyboard a region moves as a whole, or its lower right corner, which cannot pass the other", () => {
    near(nudged([0.4, 0.4, 0.6, 0.6], [1, 0], 0.02, false), [0.42, 0.4, 0.62, 0.6])
    near(nudged([0.4, 0.4, 0.6, 0.6], [0, -1], 0.02, true), [0.4, 0.4, 0.6, 0.58])
    near(nudged([0.4, 0.4, 0.42, 0.6], [-1, 0], 0.02, true), [0.4, 0.4, 0.42, 0.6])
  })
})

describe("turning", () => {
  const image = { width: 200, height: 100 }

  test("a quarter turn goes clockwise, mirroring exchanges left and right of what is seen", () => {
    near(onPanel([10, 0], [0, 0], { turns: 1, mirrored: false }), [0, 10]) // right goes down
    near(onPanel([10, 0], [0, 0], { turns: 0, mirrored: true }), [-10, 0])
    near(onPanel([0, 10], [0, 0], { turns: 1, mirrored: true }), [10, 0]) // down goes left, mirrored right
  })

  test("what is pointed at is what is drawn there, however it is turned", () => {
    const random = randomly(5)
    for (let round = 0; round < 200; round++) {
      const view = { zoom: 1, shift: [0, 0], turns: Math.floor(random() * 4), mirrored: random() < 0.5 }
      const { middle } = placed(image, { across: 300, down: 400 }, view)
      const point = [random() * 300, random() * 400]
      near(onPanel(upright(point, middle, view), middle, view), point, 1e-9)
    }
  })

  test("turned by a quarter, the whole image still fits its panel, corners and all", () => {
    const panel = { across: 300, down: 400 }
    const view = { zoom: 1, shift: [0, 0], turns: 1, mirrored: false }
    const { left, top, scale, middle, fit } = placed(image, panel, view)
    assert.equal(fit, 2) // 100 rows lie across 300, 200 columns down 400
    for (const [x, y] of [[0, 0], [200, 0], [0, 100], [200, 100]]) {
      const [across, down] = onPanel([left + x * scale, top + y * scale], middle, view)
      assert.ok(across >= 0 && across <= 300 && down >= 0 && down <= 400)
    }
    assert.deepEqual([0, 1, 2, 3].map(lies), [false, true, false, true])
  })

  test("a reader is told of it, above all that sides are exchanged", () => {
    assert.equal(turnedInWords({ turns: 0, mirrored: false }), "")
    assert.equal(turnedInWords({ turns: 3, mirrored: false }), "turned 270°")
    assert.match(turnedInWords({ turns: 0, mirrored: true }), /left and right are exchanged/)
  })
})

describe("two lines", () => {
  const even = { spacing: null, shrunk: [1, 1] }

  test("the angle between two lines, whichever way they are drawn, in millimetres where these are known", () => {
    near([angle([[0, 0, 10, 0], [0, 0, 10, 10]], even)], [45])
    near([angle([[10, 0, 0, 0], [0, 0, 10, 10]], even)], [45])
    near([angle([[0, 0, 10, 0], [5, 5, 5, 9]], even)], [90])
    near([angle([[0, 0, 10, 0], [0, 0, 10, 10]], { spacing: [2, 1], shrunk: [1, 1] })], [(Math.atan(2) * 180) / Math.PI])
  })

  test("the cardiothoracic ratio counts what the lines go across", () => {
    near([ratio([[10, 50, 60, 55], [0, 80, 100, 70]])], [0.5])
    assert.equal(measuredInWords("ratio", [[10, 0, 60, 0], [0, 9, 100, 9]], even), "heart / chest 0.50")
    assert.match(measuredInWords("ratio", [[10, 0, 60, 0], [7, 9, 7, 20]], even), /must go across/)
    assert.match(measuredInWords("ratio", [[10, 0, 60, 0]], even), /draw that of the chest/)
    assert.match(measuredInWords("angle", [[10, 0, 60, 0]], even), /draw the second/)
  })
})

describe("ruler", () => {
  test("millimetres come from the distance of rows and of columns, which may differ", () => {
    const header = { spacing: [0.2, 0.1], shrunk: [2, 2] }
    assert.equal(distance([10, 10, 110, 10], header), "10.0 mm") // across 100 columns
    assert.equal(distance([10, 10, 10, 110], header), "20.0 mm") // down 100 rows
    assert.equal(distance([0, 0, 30, 20], { spacing: [0.2, 0.1], shrunk: [1, 1] }), "5.0 mm") // 3, 4, 5
    assert.equal(distance([50, 60, 50, 60], header), "0.0 mm")
  })

  test("without a spacing the original's pixels are counted, also of an image that was shrunk", () => {
    assert.equal(distance([0, 0, 3, 4], { spacing: null, shrunk: [1, 1] }), "5 pixels")
    assert.equal(distance([0, 0, 3, 0], { spacing: null, shrunk: [4, 2] }), "6 pixels")
    assert.match(aboutRuler(null), /pixels/)
    assert.match(aboutRuler([0.1, 0.1]), /millimetres; they are on the detector/)
  })

  test("by keyboard a cross moves until it is set, then the end alone", () => {
    const cross = moved([5, 5, 5, 5], false, [1, 0], 2)
    assert.deepEqual(cross, [7, 5, 7, 5])
    assert.deepEqual(moved(cross, true, [0, -1], 20), [7, 5, 7, -15])
  })
})

describe("colours", () => {
  test("a scale gives its own colours at its stops and what is between in between", () => {
    HEAT.forEach((colour, at) => assert.deepEqual(tint(at / 4, HEAT), colour))
    assert.deepEqual(tint(0.125, [[0, 0, 0], [8, 16, 24], [0, 0, 0], [0, 0, 0], [0, 0, 0]]), [4, 8, 12])
    assert.deepEqual(tint(0.5, SIGNED), [0, 0, 0])
    assert.deepEqual(ofHex("#56b4e9"), [0x56, 0xb4, 0xe9])
  })

  test("the contour surrounds the strongest tenth of the cells, at the border too", () => {
    const values = new Int8Array(25).fill(10)
    values[12] = values[0] = 90
    const lines = contour({ width: 5, height: 5, values })
    const has = (line) => lines.some((each) => each.join() === line.join())
    assert.equal(lines.length, 8)
    for (const line of [[2, 2, 2, 3], [3, 2, 3, 3], [2, 2, 3, 2], [2, 3, 3, 3], [0, 0, 0, 1], [0, 0, 1, 0]]) assert.ok(has(line), line)
    assert.deepEqual(contour({ width: 5, height: 5, values: new Int8Array(25) }), []) // nothing is strong
    const ramp = Int8Array.from({ length: 100 }, (_, at) => at)
    const rows = new Set(contour({ width: 10, height: 10, values: ramp }).map(([, y]) => y))
    assert.deepEqual([...rows], [9, 10]) // ten of a hundred: the last row
    const flat = contour({ width: 2, height: 2, values: Int8Array.of(5, 5, 5, 5) })
    assert.equal(flat.length, 8) // all alike: all inside
  })
})

// As the server packs it, in the midst of a larger message: the browser gives a view into it, at any place.
function packed(header, bytes) {
  let text = JSON.stringify(header)
  text += " ".repeat((4 - (text.length % 4)) % 4)
  const message = new Uint8Array(3 + 4 + text.length + bytes.length + 2)
  new DataView(message.buffer).setUint32(3, text.length, true)
  message.set(new TextEncoder().encode(text), 7)
  message.set(bytes, 7 + text.length)
  return message.subarray(3, message.length - 2)
}

test("what the server packed is read as it was: header, pixels, overlays", () => {
  const overlays = [{ kind: "heat", width: 1, height: 3 }, { kind: "picture", width: 2, height: 1 }]
  const found = unpack(packed({ width: 2, height: 2, levels: 65535, overlays }, [0, 0, 1, 0, 0, 1, 255, 255, 1, 2, 3, 4, 5]))
  assert.deepEqual([...found.pixels], [0, 1, 256, 65535])
  assert.deepEqual(found.header.overlays.map(({ values }) => [...values]), [[1, 2, 3], [4, 5]])
})

test("few grey levels come as bytes, and masks as bits", () => {
  const overlays = [{ kind: "mask", width: 5, height: 2 }, { kind: "heat", width: 1, height: 1 }]
  const found = unpack(packed({ width: 3, height: 1, levels: 255, overlays }, [0, 7, 255, 0b10000001, 0b01000000, 9]))
  assert.deepEqual([...found.pixels], [0, 7, 255])
  const [mask, heat] = found.header.overlays
  assert.deepEqual([...mask.values], [255, 0, 0, 0, 0, 0, 0, 255, 0, 255])
  assert.deepEqual([...heat.values], [9])
})
