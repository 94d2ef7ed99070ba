// What the components of one page know of each other.
interface Window {
  cxrLensHeat: unknown
  cxrLensPlates: Map<string, Uint8Array>
}
