// Small tools for the document. All text goes in through textContent.

export const $ = (id) => document.getElementById(id);

export function put(node, text) {
  const value = text ?? "";
  if (node.textContent !== value) node.textContent = value;
}

export function make(tag, text, name) {
  const node = document.createElement(tag);
  if (text) node.textContent = text;
  if (name) node.className = name;
  return node;
}

function fields(node) {
  const found = {};
  for (const child of node.querySelectorAll("[data-field]")) found[child.dataset.field] = child;
  return found;
}

// Shows `items` as copies of a template, one per key, reusing what is there so that nothing flickers or loses focus.
export function list(container, template, items, key, show) {
  const old = new Map([...container.children].map((node) => [node.dataset.key, node]));
  let previous = null;
  for (const item of items) {
    const name = key(item);
    let node = old.get(name);
    if (node) {
      old.delete(name);
    } else {
      node = $(template).content.firstElementChild.cloneNode(true);
      node.dataset.key = name;
      node.fields = fields(node);
    }
    const place = previous ? previous.nextElementSibling : container.firstElementChild;
    if (place !== node) container.insertBefore(node, place);
    show(node, node.fields, item);
    previous = node;
  }
  for (const node of old.values()) node.remove();
}

export function lines(container, texts) {
  while (container.children.length > texts.length) container.lastElementChild.remove();
  texts.forEach((text, i) => {
    put(container.children[i] ?? container.appendChild(document.createElement("li")), text);
  });
}
