// @ts-check
/** Millimetres per pixel of a recipe: typed or measured, one for all of its ROIs, and fixed once something is stored by it. */
import { field, fill, h } from "../dom.js";
import { number, t } from "../texts.js";

const MOST_NAMED = 6;

export class ScaleField {
  /** @param {string} recipe @param {(mm_per_px: number) => void} onChange a person wants it for the whole recipe */
  constructor(recipe, onChange) {
    this.recipe = recipe;
    this.onChange = onChange;
    /** @type {string[]} names of the recipe's ROIs */
    this.names = [];
    this.value = 1;
    this.isLocked = false;
    this.input = h("input", { id: "roi-scale", type: "number", min: 0.000001, max: 1000000, step: "any", inputmode: "decimal", onchange: () => this.typed() });
    this.hint = h("p.hint", {}, t("roi.scale_hint"));
    this.question = h("div.row", { role: "alert", hidden: true });
    this.node = h("div.scale", {}, field(t("roi.scale"), this.input), this.question, this.hint);
  }

  /**
   * @param {number} value
   * @param {string[]} names of the recipe's ROIs
   * @param {string[]} holding names of those whose pictures are stored by this scale: it cannot be changed any more
   * @param {boolean} mayChange
   */
  show(value, names, holding, mayChange) {
    this.value = value;
    this.names = names;
    this.isLocked = holding.length > 0;
    this.input.disabled = this.isLocked || !mayChange;
    if (this.question.hidden) this.input.value = String(value);
    if (this.isLocked) fill(this.hint, t("roi.scale_locked", { recipe: this.recipe, names: namesOf(holding) }));
  }

  typed() {
    const value = this.input.valueAsNumber;
    if (value > 0 && this.input.validity.valid) this.want(value);
    else this.input.value = String(this.value);
  }

  /** @param {number} value typed or measured */
  want(value) {
    if (value === this.value) return this.answer();
    if (this.value === 1 && this.names.length <= 1) return this.onChange(value); // nobody set one
    const no = h("button", { onclick: () => this.answer() }, t("cancel"));
    const yes = h("button.primary", { onclick: () => { this.answer(); this.onChange(value); } }, t("roi.scale_yes"));
    fill(this.question, h("p", {}, t("roi.scale_ask", { n: Math.max(1, this.names.length), mm_per_px: number(value), names: namesOf(this.names) })), yes, no);
    this.question.hidden = false;
    yes.focus();
  }

  answer() {
    this.question.hidden = true;
    this.input.value = String(this.value);
    this.input.focus({ preventScroll: true });
  }
}

/** @param {string[]} names */
function namesOf(names) {
  return names.slice(0, MOST_NAMED).join(", ") + (names.length > MOST_NAMED ? ", …" : "");
}
