// What the server packed: header length (uint32), header (JSON), pixels (uint16), then each overlay's values (uint8),
// all little-endian.
export function unpack(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const length = view.getUint32(0, true)
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)))
  const count = header.width * header.height
  let at = 4 + length
  const pixels = new Uint16Array(bytes.slice(at, at + 2 * count).buffer)
  at += 2 * count
  for (const overlay of header.overlays) {
    const size = overlay.width * overlay.height
    overlay.values = bytes.slice(at, at + size)
    at += size
  }
  return { header, pixels }
}
