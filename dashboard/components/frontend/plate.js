// Brings the packed image of one screen to the browser and keeps it there for the reading page.
const KEPT = 12

export default function mount({ data }) {
  const length = new DataView(data.buffer, data.byteOffset).getUint32(0, true)
  const id = new TextDecoder().decode(data.subarray(4, 4 + length))
  const plates = (window.cxrLensPlates ??= new Map())
  plates.delete(id)
  plates.set(id, data.slice(4 + length))
  while (plates.size > KEPT) plates.delete(plates.keys().next().value)
  window.dispatchEvent(new CustomEvent("cxr-lens-plate", { detail: id }))
}
