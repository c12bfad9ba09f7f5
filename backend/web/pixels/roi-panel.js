// @ts-check
/**
 * What stands below the stage: buttons, and a number field for everything that can be dragged.
 *
 * @import {Roi} from "./roi.js"
 * @typedef {"cx"|"cy"|"w"|"h"|"r"|"r_inner"|"angle_deg"} Field
 * @typedef {{
 *   kind: (kind: Roi["kind"]) => void, number: (field: Field, value: number) => void, length: (mm: number) => void,
 *   whole: () => void, undo: () => void, redo: () => void, farther: () => void, closer: () => void, fit: () => void, measure: () => void,
 * }} Actions
 * @typedef {{roi: Roi|null, canUndo: boolean, canRedo: boolean, measuring: boolean, measured: boolean}} Shown
 */

export const LABELS = {
  stage: "ROI on the picture. Arrows move it by 1 pixel, with Shift by 10; [ and ] turn it by 0.1°; + and − zoom; drag with Space to move the picture.",
  kind: "Kind",
  rect: "Rectangle",
  circle: "Circle",
  annulus: "Ring",
  cx: "Centre x (px)",
  cy: "Centre y (px)",
  w: "Width (px)",
  h: "Height (px)",
  r: "Radius (px)",
  r_inner: "Inner radius (px)",
  angle_deg: "Angle (°)",
  whole: "Whole picture",
  fit: "Show all",
  closer: "Zoom in",
  farther: "Zoom out",
  undo: "Undo",
  redo: "Redo",
  measure: "Measure the scale",
  length: "Length of the line (mm)",
  measure_first: "Click on the first end of a length that you know.",
  measure_second: "Click on its other end.",
  measure_length: "Type how long the line is in millimetres; it has {pixels} pixels.",
  measured: "1 pixel is {mm_per_px} mm.",
  outside: "The ROI reaches {pixels} pixels beyond the picture.",
  bounded: "The ROI ends at the edge of the picture: {field} is {value}. A smaller ROI can be moved.",
  now: "Centre {cx}, {cy}; {size} pixels; {angle_deg}°.",
};

/** @type {Field[]} */
const FIELDS = ["cx", "cy", "w", "h", "r", "r_inner", "angle_deg"];
/** @type {Record<Roi["kind"], Field[]>} */
const UNUSED = { rect: ["r", "r_inner"], circle: ["w", "h", "r_inner"], annulus: ["w", "h"] };
/** @type {(keyof Actions & keyof typeof LABELS)[]} */
const BUTTONS = ["whole", "undo", "redo", "farther", "closer", "fit", "measure"];

/**
 * @template {keyof HTMLElementTagNameMap} Name
 * @param {Name} name
 * @param {Record<string, string>} [attributes]
 * @param {...(Node|string)} children
 * @returns {HTMLElementTagNameMap[Name]}
 */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export class Panel {
  /** @param {Record<string, string>} texts  as LABELS @param {Actions} actions */
  constructor(texts, actions) {
    const options = ["rect", "circle", "annulus"].map((kind) => element("option", { value: kind }, texts[kind]));
    this.kinds = element("select", { "aria-label": texts.kind }, ...options);
    this.kinds.addEventListener("change", () => actions.kind(/** @type {Roi["kind"]} */ (this.kinds.value)));
    this.buttons = new Map(BUTTONS.map((name) => {
      const button = element("button", { type: "button", "data-action": name }, texts[name]);
      button.addEventListener("click", () => /** @type {() => void} */ (actions[name])());
      return [name, button];
    }));
    this.fields = new Map(FIELDS.map((name) => {
      const step = name === "angle_deg" ? "0.1" : name === "w" || name === "h" ? "1" : "0.5";
      const input = numberField(name, { step });
      input.addEventListener("change", () => actions.number(name, input.valueAsNumber));
      return [name, input];
    }));
    this.length = numberField("length", { step: "any", min: "0" });
    this.length.addEventListener("change", () => actions.length(this.length.valueAsNumber));
    this.lengthLabel = element("label", {}, texts.length, this.length);
    const labelled = [...this.fields].map(([name, input]) => element("label", {}, texts[name], input));
    this.roots = [
      element("div", { class: "roi-tools" }, this.kinds, ...this.buttons.values()),
      element("div", { class: "roi-numbers" }, ...labelled, this.lengthLabel),
    ];
  }

  /** @param {Shown} shown */
  show({ roi, canUndo, canRedo, measuring, measured }) {
    this.kinds.disabled = !roi;
    if (roi) this.kinds.value = roi.kind;
    for (const [name, input] of this.fields) {
      /** @type {HTMLElement} */ (input.parentElement).hidden = roi !== null && UNUSED[roi.kind].includes(name);
      input.disabled = !roi;
      const text = roi ? String(roi[name]) : "";
      if (input.value !== text) input.value = text;
    }
    this.lengthLabel.hidden = !measured;
    if (!measuring) this.length.value = "";
    const disabled = { whole: !roi, undo: !canUndo, redo: !canRedo, measure: !roi };
    for (const [name, off] of Object.entries(disabled)) this.button(name).disabled = off;
    this.button("measure").setAttribute("aria-pressed", String(measuring));
  }

  /** @param {string} name */
  button(name) {
    return /** @type {HTMLButtonElement} */ (this.buttons.get(/** @type {any} */ (name)));
  }
}

/** @param {string} name @param {Record<string, string>} attributes */
function numberField(name, attributes) {
  return element("input", { type: "number", inputmode: "decimal", "data-field": name, ...attributes });
}
