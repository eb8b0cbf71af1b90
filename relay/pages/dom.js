// Makes and changes elements. Texts are set as text: nothing that a guest says is ever read as markup.

export const element = (id) => document.getElementById(id);

/** Makes an element; properties with a dash in their name are attributes. Children are elements or texts. */
export function make(tag, properties = {}, ...children) {
  return furnish(document.createElement(tag), properties, children);
}

/** Makes an element of an SVG, whose properties all are attributes. */
export function draw(tag, attributes = {}, ...children) {
  const drawn = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) drawn.setAttribute(name, value);
  drawn.append(...children);
  return drawn;
}

function furnish(made, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

/** Sets a text, and leaves the page alone where it is the same already. */
export function say(where, text) {
  if (where.textContent !== text) where.textContent = text;
}

/** Has a choice offer these; `options` are pairs of value and text. What is chosen stays so while it is offered. */
export function offer(select, options) {
  const before = [...select.options].map(({ value, text }) => `${value}\n${text}`).join("\n\n");
  if (before === options.map(([value, text]) => `${value}\n${text}`).join("\n\n")) return;
  const chosen = select.value;
  select.replaceChildren(...options.map(([value, text]) => make("option", { value }, text)));
  if (options.some(([value]) => value === chosen)) select.value = chosen;
}
