// Brings heat maps and a region to the viewer, apart from its image, which is a hundred times larger.
export default function mount({ data }) {
  window.cxrLensHeat = data
  window.dispatchEvent(new CustomEvent("cxr-lens-heat", { detail: data }))
  return () => (window.cxrLensHeat = null)
}
