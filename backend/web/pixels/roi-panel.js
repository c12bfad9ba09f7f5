// @ts-check
/**
 * What stands below the stage: buttons, and a number field for everything that can be dragged.
 *
 * @import {Roi} from "./roi.js"
 * @import {Known} from "./roi-measure.js"
 * @typedef {"cx"|"cy"|"w"|"h"|"r"|"r_inner"|"angle_deg"} Field
 * @typedef {{
 *   kind: (kind: Roi["kind"]) => void, number: (field: Field, value: number) => void, length: (mm: number) => void,
 *   whole: () => void, undo: () => void, redo: () => void, farther: () => void, closer: () => void, fit: () => void,
 *   measure: () => void, circle: () => void,
 * }} Actions
 * @typedef {{roi: Roi|null, canUndo: boolean, canRedo: boolean, measuring: Known|null, measured: boolean, plain: boolean}} Shown
 */

import { t } from "../texts.js";

/** @type {Field[]} */
const FIELDS = ["cx", "cy", "w", "h", "r", "r_inner", "angle_deg"];
/** @type {Record<Roi["kind"], Field[]>} */
const UNUSED = { rect: ["r", "r_inner"], circle: ["w", "h", "r_inner"], annulus: ["w", "h"] };
const KINDS = /** @type {const} */ (["rect", "circle", "annulus"]);
const BUTTONS = /** @type {const} */ (["whole", "undo", "redo", "farther", "closer", "fit", "measure", "circle"]);

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
  /** @param {Actions} actions */
  constructor(actions) {
    const options = KINDS.map((kind) => element("option", { value: kind }, t(`editor.kind.${kind}`)));
    this.kinds = element("select", { "aria-label": t("editor.kind") }, ...options);
    this.kinds.addEventListener("change", () => actions.kind(/** @type {Roi["kind"]} */ (this.kinds.value)));
    this.buttons = new Map(BUTTONS.map((name) => {
      const button = element("button", { type: "button", "data-action": name }, t(`editor.do.${name}`));
      button.addEventListener("click", () => actions[name]());
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
    this.lengthName = element("span");
    this.lengthLabel = element("label", {}, this.lengthName, this.length);
    const labelled = [...this.fields].map(([name, input]) => element("label", {}, t(`editor.field.${name}`), input));
    this.roots = [
      element("div", { class: "roi-tools" }, this.kinds, ...this.buttons.values()),
      element("div", { class: "roi-numbers" }, ...labelled, this.lengthLabel),
    ];
  }

  /** @param {Shown} shown */
  show({ roi, canUndo, canRedo, measuring, measured, plain }) {
    this.kinds.disabled = !roi;
    this.kinds.hidden = plain;
    this.button("whole").hidden = plain;
    if (roi) this.kinds.value = roi.kind;
    for (const [name, input] of this.fields) {
      /** @type {HTMLElement} */ (input.parentElement).hidden = roi !== null && (UNUSED[roi.kind].includes(name) || (plain && name === "angle_deg"));
      input.disabled = !roi;
      const text = roi ? String(roi[name]) : "";
      if (input.value !== text) input.value = text;
    }
    this.lengthLabel.hidden = !measured;
    this.lengthName.textContent = t(measuring === "circle" ? "editor.diameter" : "editor.length");
    if (!measuring) this.length.value = "";
    const disabled = { whole: !roi, undo: !canUndo, redo: !canRedo, measure: !roi, circle: !roi };
    for (const [name, off] of Object.entries(disabled)) this.button(name).disabled = off;
    this.button("measure").setAttribute("aria-pressed", String(measuring === "line"));
    this.button("circle").setAttribute("aria-pressed", String(measuring === "circle"));
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
