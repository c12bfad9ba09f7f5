// @ts-check
/** Save a recipe as a layout of the desktop GUI: what the file holds and what not, and then the file. */
import { field, fill, h, icon } from "./dom.js";
import { hasMasters, writeGuiLayout } from "./gui-layout-write.js";
import { loadLayout } from "./layout.js";
import { t } from "./texts.js";
import "./texts-later.js";

/** @typedef {import("./main.js").App} App */
/** @typedef {import("./gui-layout-write.js").Pattern} Pattern */
/** @typedef {import("./layout.js").Layout} Layout */

const MARGIN_PX = 50;

export class SavePanel {
  /**
   * @param {App} app
   * @param {string} recipe
   * @param {() => void} onClose
   */
  constructor(app, recipe, onClose) {
    this.onClose = onClose;
    /** @type {Layout | null} */
    this.content = null;
    this.url = "";
    const recipes = [...new Set((app.session.value.rois ?? []).map((roi) => roi.recipe_id))];
    this.recipe = h("select", { id: "gui-save-recipe", onchange: () => void this.load() }, recipes.map((name) => h("option", { value: name, selected: name === recipe }, name)));
    this.pattern = h("select", { id: "gui-pattern", onchange: () => this.show() });
    this.margin = h("input", { id: "gui-margin", type: "number", min: 1, max: 10000, step: 1, value: MARGIN_PX, onchange: () => this.show() });
    this.masters = h(
      "div.row",
      { hidden: true },
      field(t("gui.pattern"), this.pattern),
      field(t("gui.margin"), this.margin),
    );
    this.told = h("div", { role: "status" });
    this.download = h("a.button.primary", { hidden: true });
    this.node = h(
      "section.panel",
      { "aria-label": t("gui.save"), tabindex: -1 },
      h("h2", {}, t("gui.save")),
      h("div.notice", {}, h("p", {}, t("gui.proof"))),
      h("div.row", {}, field(t("line.recipe"), this.recipe)),
      this.masters,
      this.told,
      h("div.row", {}, this.download, h("button", { onclick: () => this.close() }, t("close"))),
    );
  }

  async load() {
    const { content } = await loadLayout(this.recipe.value);
    this.content = content;
    this.masters.hidden = hasMasters(content);
    this.margin.value = String(content.anchor?.search_px ?? MARGIN_PX);
    const drawn = content.rois.filter(({ roi }) => roi !== null);
    fill(
      this.pattern,
      content.anchor ? h("option", { value: "anchor" }, t("gui.pattern.anchor")) : null,
      drawn.map(({ name }, at) => h("option", { value: String(at) }, t("gui.pattern.roi", { name }))),
      h("option", { value: "" }, t("gui.pattern.none")),
    );
    this.show();
    this.node.focus({ preventScroll: false });
  }

  /** @returns {Pattern | null} */
  chosen() {
    const { anchor } = /** @type {Layout} */ (this.content);
    if (this.pattern.value === "anchor" && anchor) return anchor;
    const drawn = this.content?.rois.filter(({ roi }) => roi !== null)[Number(this.pattern.value)];
    if (this.pattern.value === "" || !drawn?.roi) return null;
    const { kind, cx, cy, w, h: height, r } = drawn.roi;
    return { cx, cy, w: kind === "rect" ? w : 2 * r, h: kind === "rect" ? height : 2 * r, picture: drawn.picture };
  }

  show() {
    if (!this.content) return;
    const margin = Math.max(1, this.margin.valueAsNumber || MARGIN_PX);
    const { file, layout, n, found, notes } = writeGuiLayout(this.content, this.recipe.value, this.chosen(), margin);
    fill(
      this.told,
      h("p", {}, t("gui.holds", { n })),
      h("h3", {}, t(notes.length ? "gui.notes_save" : "gui.notes_save_none")),
      h("ul", {}, notes.map((note) => h("li", {}, note))),
      found ? null : h("div.notice", {}, h("p", {}, t("gui.not_found"))),
      found && !hasMasters(this.content) ? h("p", {}, t("gui.picture_of_master")) : null,
    );
    URL.revokeObjectURL(this.url);
    this.url = URL.createObjectURL(new Blob([JSON.stringify(layout, null, 2)], { type: "application/json" }));
    this.download.href = this.url;
    this.download.download = file;
    this.download.hidden = n === 0;
    fill(this.download, icon("file"), t("save_file", { file }));
  }

  close() {
    URL.revokeObjectURL(this.url);
    this.node.remove();
    this.onClose();
  }
}
