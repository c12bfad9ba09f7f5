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

import { h } from "../dom.js";
import { t } from "../texts.js";

/** @type {Field[]} */
const FIELDS = ["cx", "cy", "w", "h", "r", "r_inner", "angle_deg"];
/** @type {Record<Roi["kind"], Field[]>} */
const UNUSED = { rect: ["r", "r_inner"], circle: ["w", "h", "r_inner"], annulus: ["w", "h"] };
const KINDS = /** @type {const} */ (["rect", "circle", "annulus"]);
const BUTTONS = /** @type {const} */ (["whole", "undo", "redo", "farther", "closer", "fit", "measure", "circle"]);

export class Panel {
  /** @param {Actions} actions */
  constructor(actions) {
    const options = KINDS.map((kind) => h("option", { value: kind }, t(`editor.kind.${kind}`)));
    this.kinds = h("select", { "aria-label": t("editor.kind"), onchange: () => actions.kind(this.kinds.value) }, options);
    this.buttons = new Map(BUTTONS.map((name) => [name, h("button", { "data-action": name, onclick: () => actions[name]() }, t(`editor.do.${name}`))]));
    this.fields = new Map(FIELDS.map((name) => {
      const step = name === "angle_deg" ? "0.1" : name === "w" || name === "h" ? "1" : "0.5";
      return [name, numberField(name, { step, onchange: (/** @type {any} */ { target }) => actions.number(name, target.valueAsNumber) })];
    }));
    this.length = numberField("length", { step: "any", min: "0", onchange: () => actions.length(this.length.valueAsNumber) });
    this.lengthName = h("span");
    this.lengthLabel = h("label", {}, this.lengthName, this.length);
    const labelled = [...this.fields].map(([name, input]) => h("label", {}, t(`editor.field.${name}`), input));
    this.roots = [
      h("div.roi-tools", {}, this.kinds, [...this.buttons.values()]),
      h("div.roi-numbers", {}, labelled, this.lengthLabel),
    ];
  }

  /** @param {Shown} shown */
  show({ roi, canUndo, canRedo, measuring, measured, plain }) {
    this.kinds.disabled = !roi;
    this.kinds.hidden = plain;
    this.button("whole").hidden = plain;
    if (roi) this.kinds.value = roi.kind;
    for (const [name, input] of this.fields) {
      input.parentElement.hidden = roi !== null && (UNUSED[roi.kind].includes(name) || (plain && name === "angle_deg"));
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
    return this.buttons.get(/** @type {any} */ (name));
  }
}

/** @param {string} name @param {Record<string, any>} props */
function numberField(name, props) {
  return h("input", { type: "number", inputmode: "decimal", "data-field": name, ...props });
}
