// @ts-check
/** Elements without HTML text: every text becomes a text node, so nothing that a file is called can become markup. */

const SVG = "http://www.w3.org/2000/svg";
const AS_PROPERTY = new Set(["value", "checked", "disabled", "hidden", "selected", "multiple", "open", "indeterminate"]);

/** @typedef {Node | string | number | null | undefined | false} Child */

/**
 * @template {Element} T
 * @param {T} element
 * @param {Record<string, any>} props
 * @param {Child[] | Child[][]} children
 * @returns {T}
 */
function build(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (AS_PROPERTY.has(name)) /** @type {any} */ (element)[name] = value;
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false) element.setAttribute(name, String(value));
  }
  fill(element, ...children);
  return element;
}

/**
 * An HTML element: `h("button.primary", {onclick}, "Fit")`.
 * @param {string} tag name, and classes behind dots
 * @param {Record<string, any>} [props] listeners (`onclick`), properties and attributes
 * @param {...any} children
 * @returns {any} the element; `any`, so that callers need no cast for its own members
 */
export function h(tag, props = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  if (classes.length) element.className = classes.join(" ");
  if (name === "button" && !("type" in props)) element.setAttribute("type", "button");
  return build(element, props, children);
}

/** A label above its field. @param {Child} label @param {any} input with an id @returns {any} */
export function field(label, input) {
  return h("label.field", { for: input.id }, h("span", {}, label), input);
}

/**
 * An SVG element.
 * @param {string} name
 * @param {Record<string, any>} [props]
 * @param {...any} children
 * @returns {any}
 */
export function s(name, props = {}, ...children) {
  return build(document.createElementNS(SVG, name), props, children);
}

/**
 * Replace what an element holds.
 * @param {Element | DocumentFragment} element
 * @param {...any} children
 */
export function fill(element, ...children) {
  const nodes = children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
  element.replaceChildren(...nodes.map((child) => (child instanceof Node ? child : String(child))));
}

/**
 * Make a change that may remove, hide or disable what has the focus. Then the whole has it: Tab goes on inside, not at the top of the page.
 * @param {HTMLElement} whole
 * @param {() => void} change
 */
export function keepFocus(whole, change) {
  const hadFocus = whole.contains(document.activeElement);
  change();
  const has = document.activeElement;
  if (!hadFocus || (has && whole.contains(has) && has.checkVisibility() && !has.matches(":disabled"))) return;
  whole.tabIndex = -1;
  whole.focus({ preventScroll: true });
}

/**
 * A drawing of 24 by 24 units in the colour of the text around it.
 * @param {keyof typeof PATHS} name
 * @returns {any}
 */
export function icon(name) {
  return s(
    "svg",
    { viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true", focusable: "false" },
    s("path", { d: PATHS[name] }),
  );
}

const PATHS = {
  line: "M4 5h7v6H4zM13 5h7v6h-7zM4 13h7v6H4zM13 13h7v6h-7z",
  roi: "M4 8V4h4M16 4h4v4M20 16v4h-4M8 20H4v-4M9 9h6v6H9z",
  samples: "M4 6h10v10H4zM8 20h12V10M7 11l2 2 4-4",
  threshold: "M3 20h18M6 20v-6M9 20V9M12 20v-8M15 20v-4M18 20v-3M13.5 3v14",
  inspect: "M2 12s4-7 10-7 10 7 10 7-4 7-10 7S2 12 2 12zM12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6z",
  live: "M3 7h12v10H3zM15 11l6-4v10l-6-4",
  review: "M5 4h14v16H5zM8 9l1.5 1.5L12 8M8 15l1.5 1.5L12 14M14.5 9.5H17M14.5 15.5H17",
  health: "M3 12h4l2-6 4 12 3-8 2 2h3",
  plus: "M12 5v14M5 12h14",
  check: "M5 12.5l4.5 4.5L19 7.5",
  cross: "M6 6l12 12M18 6L6 18",
  folder: "M3 7h6l2 2h10v10H3z",
  file: "M6 3h8l4 4v14H6zM14 3v4h4",
  play: "M7 5l12 7-12 7z",
  pause: "M8 5v14M16 5v14",
  left: "M15 5l-7 7 7 7",
  right: "M9 5l7 7-7 7",
  undo: "M8 8H4V4M4.5 8A8 8 0 1 1 4 13",
  key: "M8 15a4 4 0 1 1 3.5-2H21v3h-3v2h-3v-3h-3.5A4 4 0 0 1 8 15z",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  book: "M5 4h11a3 3 0 0 1 3 3v13H8a3 3 0 0 1-3-3zM5 17a3 3 0 0 1 3-3h11",
};
