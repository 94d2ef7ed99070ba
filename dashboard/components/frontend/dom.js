/**
 * An element. Text goes in as text, never as markup.
 *
 * @param {string} name
 * @param {{text?: string, className?: string, [attribute: string]: unknown}} about its text, its class, its attributes
 * @param {...(Node | string)} children
 * @returns {any} of the kind that the name says
 */
export function make(name, { text, className, ...rest } = {}, ...children) {
  const element = document.createElement(name)
  if (text !== undefined) element.textContent = text
  if (className) element.className = className
  for (const [key, value] of Object.entries(rest)) element.setAttribute(key, String(value))
  element.append(...children)
  return element
}

// A button that says by aria-pressed whether what it switches is on.
export function toggle(text, isOn, flip) {
  const button = make("button", { type: "button", text, "aria-pressed": String(isOn()) })
  button.onclick = () => {
    flip()
    button.setAttribute("aria-pressed", String(isOn()))
  }
  return button
}
