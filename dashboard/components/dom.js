// Elements. Text goes in as text, never as markup.
function make(name, { text, className, ...rest } = {}, ...children) {
  const element = document.createElement(name)
  if (text !== undefined) element.textContent = text
  if (className) element.className = className
  for (const [key, value] of Object.entries(rest)) element.setAttribute(key, value)
  element.append(...children)
  return element
}
