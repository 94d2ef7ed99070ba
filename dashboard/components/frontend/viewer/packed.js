// What the server packed: header length (uint32), header (JSON), pixels (uint8 where the header's levels fit, else
// uint16), then each overlay's values (uint8, or bits of a mask, the first of a byte its highest), all little-endian.
const BYTE = 255

export function unpack(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const length = view.getUint32(0, true)
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)))
  let at = 4 + length
  const next = (size) => bytes.slice(at, (at += size))
  const count = header.width * header.height
  const pixels = header.levels <= BYTE ? next(count) : new Uint16Array(next(2 * count).buffer)
  for (const overlay of header.overlays) {
    const size = overlay.width * overlay.height
    overlay.values = overlay.kind === "mask" ? ofBits(next(Math.ceil(size / 8)), size) : next(size)
  }
  return { header, pixels }
}

function ofBits(bits, count) {
  const values = new Uint8Array(count)
  for (let at = 0; at < count; at++) if ((bits[at >> 3] >> (7 - (at & 7))) & 1) values[at] = BYTE
  return values
}
