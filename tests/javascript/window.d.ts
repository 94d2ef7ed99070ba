// What the components of one page know of each other.
interface Window {
  cxrLensHeat: unknown
  cxrLensHistory: boolean
  cxrLensPlates: Map<string, Uint8Array>
}
