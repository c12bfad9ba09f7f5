// @ts-check
/** The anchor of a recipe: drawn on a picture, tried there, and what of the other pictures it finds. */
import { changeAnchor, DEFAULTS, frameOf, rectOf, removeAnchor, saveAnchor, tryAnchor } from "../anchor.js";
import { field, fill, h, icon, keepFocus } from "../dom.js";
import { LayoutConflict } from "../layout.js";
import { openPicture } from "../pixels/picture.js";
import { fixed, messageOf, t } from "../texts.js";

/** @typedef {import("../anchor.js").Anchor} Anchor */
/** @typedef {import("../anchor.js").Placement} Placement */
/** @typedef {import("../pixels/roi.js").Roi} Roi */
/** @typedef {import("../pixels/picture.js").Picture} Picture */
/** @typedef {{n: number, found: number, lowest: number}} Tally of the pictures that were looked at; lowest: score of those found */

const FIELDS = /** @type {const} */ (["search_px", "search_deg", "least_score"]);
const RANGES = { search_px: [0, 500, 1], search_deg: [0, 45, 0.5], least_score: [0.3, 1, 0.01] };
/** Of the shorter side of the picture: where the frame begins. */
const FIRST_SHARE = 5;
const MOST_NAMED = 6;

export class AnchorPanel {
  /**
   * @param {string} recipe
   * @param {object} screen
   * @param {() => Promise<{picture: Picture, placement: Placement | null} | null>} screen.reference the picture that is shown, and where its part is; null: there is none
   * @param {(rectangle: Roi | null) => void} screen.draw let a person drag the frame; null: the ROI again
   * @param {() => string[]} screen.fitted names of the recipe's ROIs that have a model
   * @param {() => Promise<void>} screen.changed the layout was changed
   */
  constructor(recipe, screen) {
    this.recipe = recipe;
    this.screen = screen;
    /** @type {Anchor | null} */
    this.anchor = null;
    /** @type {Roi | null} the frame while it is drawn */
    this.rectangle = null;
    /** @type {Picture | null} a picture of the anchor alone, where a person chose one */
    this.file = null;
    this.files = h("input", { type: "file", accept: ".png", hidden: true, onchange: () => void this.takeFile() });
    this.mayChange = false;
    this.text = h("p.hint");
    this.problem = h("p.anchor-problem", { role: "alert", hidden: true });
    this.inputs = Object.fromEntries(FIELDS.map((name) => [name, h("input", { id: `anchor-${name}`, type: "number", min: RANGES[name][0], max: RANGES[name][1], step: RANGES[name][2], inputmode: "decimal" })]));
    this.fields = h("div.anchor-fields", { hidden: true }, FIELDS.map((name) => field(t(`anchor.field.${name}`), this.inputs[name])));
    this.tools = h("div.row");
    this.node = h("div.panel.anchor", {}, h("h2", {}, t("anchor.title")), this.text, this.fields, this.problem, this.tools, this.files);
  }

  get isDrawing() {
    return this.rectangle !== null;
  }

  /** @param {Anchor | null} anchor @param {Tally} tally @param {boolean} mayChange */
  show(anchor, tally, mayChange) {
    this.anchor = anchor;
    this.mayChange = mayChange;
    if (this.isDrawing) return;
    fill(this.text, anchor ? this.told(anchor, tally) : t("anchor.none"));
    const state = String([anchor !== null, mayChange]);
    if (this.tools.dataset.state === state) return;
    this.tools.dataset.state = state;
    this.rest();
  }

  /** @param {Anchor} anchor @param {Tally} tally */
  told(anchor, { n, found, lowest }) {
    const what = t("anchor.is", { w: anchor.w, h: anchor.h, px: anchor.search_px, deg: anchor.search_deg });
    return n ? `${what} ${t("anchor.tally", { n, found, lowest: found ? fixed(lowest, 2) : "–", least: anchor.least_score })}` : what;
  }

  /** What can be done while nothing is drawn. */
  rest() {
    keepFocus(this.node, () => {
      this.fields.hidden = true;
      this.problem.hidden = true;
      const draw = h("button", { onclick: () => void this.begin() }, t(this.anchor ? "anchor.change" : "anchor.draw"));
      fill(this.tools, this.mayChange ? [draw, this.anchor && h("button", { onclick: () => this.askRemove() }, icon("trash"), t("anchor.remove"))] : null);
    });
  }

  async begin() {
    const reference = await this.screen.reference();
    if (!reference) return;
    if (this.anchor && !reference.placement) return this.say(t("anchor.choose_found"));
    const { width, height } = reference.picture;
    const side = Math.floor(Math.min(width, height) / FIRST_SHARE) * 2;
    this.rectangle = rectOf(this.anchor ?? { cx: Math.floor(width / 2), cy: Math.floor(height / 2), w: side, h: side });
    const values = this.anchor ?? DEFAULTS;
    for (const name of FIELDS) this.inputs[name].value = String(values[name]);
    this.say(null);
    this.fields.hidden = false;
    fill(this.text, t("anchor.how"));
    this.showDrawing();
    this.screen.draw(this.rectangle);
  }

  showDrawing() {
    fill(this.tools, h("button.primary", { onclick: () => void this.take() }, icon("check"), t("anchor.use")), h("button", { onclick: () => this.files.click() }, icon("file"), t("anchor.file")), h("button", { onclick: () => this.end() }, t("cancel")));
  }

  /** A picture of the anchor, such as a master of the desktop GUI: where it lies, and that its pixels are searched. */
  async takeFile() {
    const [chosen] = this.files.files;
    const reference = await this.screen.reference();
    if (!chosen || !reference) return;
    this.busy(true);
    try {
      const file = await openPicture(chosen, { name: chosen.name });
      const { rectangle, score } = await frameOf(reference.picture, file, this.inputs.least_score.valueAsNumber || DEFAULTS.least_score, this.before(reference));
      this.screen.draw(rectangle);
      this.drawn(rectangle);
      this.file = file;
      fill(this.text, t("anchor.file_found", { name: file.name, w: file.width, h: file.height, score: fixed(score, 2) }));
    } catch (problem) {
      this.say(messageOf(problem));
    } finally {
      this.files.value = "";
      this.busy(false);
    }
  }

  /** By what the picture is found now. @param {{placement: Placement | null}} reference */
  before({ placement }) {
    return this.anchor && placement && { anchor: this.anchor, placement };
  }

  /** @param {Roi} rectangle */
  drawn(rectangle) {
    this.rectangle = rectangle;
    if (this.file) fill(this.text, t("anchor.how"));
    this.file = null;
    this.say(null);
  }

  /** Try what was drawn, say what is wrong with it, and ask before models are concerned. */
  async take() {
    const reference = await this.screen.reference();
    const { rectangle, anchor: base } = this;
    if (!reference || !rectangle) return;
    const wrong = FIELDS.find((name) => !this.inputs[name].checkValidity() || this.inputs[name].value === "");
    if (wrong) return this.say(t("anchor.range", { field: t(`anchor.field.${wrong}`), low: RANGES[wrong][0], high: RANGES[wrong][1] }));
    const { cx, cy, w, h: height } = rectangle;
    const values = Object.fromEntries(FIELDS.map((name) => [name, this.inputs[name].valueAsNumber]));
    const { width, height: rows } = reference.picture;
    const mine = /** @type {Omit<Anchor, "id">} */ ({ cx, cy, w, h: height, ...values, picture: { width, height: rows } });
    const isSame = !this.file && base !== null && base.cx === cx && base.cy === cy && base.w === w && base.h === height;
    this.busy(true);
    try {
      if (isSame) return await this.store(() => changeAnchor(this.recipe, { ...base, ...mine }, base));
      const { template, problem } = await tryAnchor(reference.picture, mine, this.before(reference), this.file);
      if (problem) return this.say(problem);
      const save = () => this.store(() => saveAnchor(this.recipe, mine, template, base));
      const fitted = this.screen.fitted();
      if (!fitted.length) return await save();
      this.ask(fitted, save, () => this.showDrawing());
    } catch (problem) {
      this.say(messageOf(problem));
    } finally {
      this.busy(false);
    }
  }

  /** @param {boolean} busy */
  busy(busy) {
    for (const button of this.tools.querySelectorAll("button")) button.disabled = busy;
  }

  /** @param {() => Promise<unknown>} store */
  async store(store) {
    try {
      await store();
    } catch (problem) {
      this.say(problem instanceof LayoutConflict ? t("anchor.conflict") : messageOf(problem));
      await this.screen.changed();
      return;
    }
    this.end();
    await this.screen.changed();
  }

  askRemove() {
    const { anchor } = this;
    if (anchor) this.ask(this.screen.fitted(), () => this.store(() => removeAnchor(this.recipe, anchor)), () => this.rest());
  }

  /**
   * Models know crops as they were cut: with another anchor they know other places.
   * @param {string[]} fitted
   * @param {() => Promise<void>} yes
   * @param {() => void} back
   */
  ask(fitted, yes, back) {
    const names = fitted.slice(0, MOST_NAMED).join(", ") + (fitted.length > MOST_NAMED ? ", …" : "");
    const no = h("button", { onclick: back }, t("cancel"));
    fill(this.tools, h("p", {}, fitted.length ? t("anchor.ask", { n: fitted.length, names }) : t("anchor.ask_remove")), h("button.primary", { onclick: () => void yes() }, t("anchor.yes")), no);
    no.focus();
  }

  end() {
    this.rectangle = this.file = null;
    this.tools.dataset.state = "";
    this.screen.draw(null);
  }

  /** @param {string | null} problem */
  say(problem) {
    this.problem.hidden = problem === null;
    fill(this.problem, problem);
  }
}
