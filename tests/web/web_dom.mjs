// As much of a browser's document as the page uses: enough to run page.js on index.html without a browser.

const VOID = new Set(["meta", "link", "input", "br", "img", "!doctype"]);

export class Node {
  constructor(tag) {
    this.tag = tag;
    this.attributes = {};
    this.children = [];
    this.parent = null;
    this.text = "";
    this.style = {};
    this.dataset = {};
    this.listeners = {};
    this.hidden = false;
    this.value = "";
  }

  get content() { return this; }
  get firstElementChild() { return this.children[0] ?? null; }
  get lastElementChild() { return this.children.at(-1) ?? null; }
  get nextElementSibling() { return this.parent.children[this.parent.children.indexOf(this) + 1] ?? null; }
  get options() { return this.children; }
  get textContent() { return this.children.length ? this.children.map((c) => c.textContent).join(" ") : this.text; }
  set title(text) { this.attributes.title = text; }
  get title() { return this.attributes.title; }
  set textContent(text) {
    if (typeof text !== "string") throw new TypeError(`textContent of <${this.tag}> set to ${text}`);
    if (this.children.length) throw new TypeError(`text would wipe the children of <${this.tag}>`);
    this.text = text;
  }

  setAttribute(name, value) {
    this.attributes[name] = String(value);
    if (name.startsWith("data-")) this.dataset[name.slice(5)] = value;
    if (name === "hidden") this.hidden = true;
  }
  toggleAttribute(name, on) { this.attributes[name] = on; }
  addEventListener(name, listener) { this.listeners[name] = listener; }
  remove() { this.parent.children.splice(this.parent.children.indexOf(this), 1); }
  appendChild(node) { return this.insertBefore(node, null); }
  insertBefore(node, before) {
    if (node.parent?.children.includes(node)) node.remove();
    node.parent = this;
    this.children.splice(before ? this.children.indexOf(before) : this.children.length, 0, node);
    return node;
  }
  get className() { return this.attributes.class ?? ""; }
  set className(name) { this.attributes.class = name; }
  get classList() { return { contains: (name) => this.className.split(" ").includes(name) }; }
  get clientWidth() { return 600; }
  contains(node) { return node === this || [...this.all()].includes(node); }
  focus() { this.focused = true; }
  showModal() { this.open = true; }
  close() { this.open = false; }
  click() { this.listeners.click?.({}); this.onclick?.({}); }
  replaceChildren(...nodes) {
    this.children = [];
    nodes.forEach((node) => this.appendChild(node));
    this.value = nodes[0]?.value ?? "";
  }
  cloneNode() {
    const copy = new Node(this.tag);
    Object.assign(copy, { text: this.text, hidden: this.hidden });
    copy.attributes = { ...this.attributes };
    copy.dataset = { ...this.dataset };
    this.children.forEach((child) => copy.appendChild(child.cloneNode()));
    return copy;
  }
  scrollIntoView() {}

  *all() {
    for (const child of this.children) {
      yield child;
      yield* child.all();
    }
  }
  querySelectorAll(selector) {
    const data = /^\[data-(\w+)\]$/.exec(selector);
    return [...this.all()].filter((node) => (data ? data[1] in node.dataset : node.tag === selector));
  }
  querySelector(selector) { return this.querySelectorAll(selector)[0] ?? null; }
  // By what the script fills in: the text of a field of this row or card.
  field(name) { return this.querySelectorAll("[data-field]").find((node) => node.dataset.field === name).textContent; }
}

export function parse(html) {
  const root = new Node("root");
  let at = root;
  for (const [, closing, tag, rest, text] of html.matchAll(/<(\/?)([!\w]+)([^>]*)>|([^<]+)/g)) {
    if (text !== undefined) {
      if (text.trim() && at.children.length === 0) at.text = text.trim();
    } else if (closing) {
      at = at.parent;
    } else {
      const node = new Node(tag);
      for (const [, name, value] of rest.matchAll(/([\w-]+)(?:="([^"]*)")?/g)) node.setAttribute(name, value ?? "");
      at.appendChild(node);
      if (!VOID.has(tag)) at = node;
    }
  }
  if (at !== root) throw new Error(`<${at.tag}> is not closed`);
  return root;
}
