// @ts-check
/** The ROIs of a recipe: which of them is drawn, a new one, a copy, whether it is judged, away with it. */
import { fill, h, icon, keepFocus } from "../dom.js";
import { t } from "../texts.js";

/** @typedef {import("../layout.js").LayoutRoi} LayoutRoi */

export class RoiList {
  /**
   * @param {string} recipe
   * @param {object} on
   * @param {(roi: LayoutRoi) => void} on.choose
   * @param {() => void} on.add
   * @param {() => void} on.copy the chosen one
   * @param {(enabled: boolean) => void} on.enable the chosen one
   * @param {() => void} on.remove the chosen one
   */
  constructor(recipe, on) {
    this.on = on;
    this.title = h("h2", {}, "");
    this.recipe = recipe;
    this.list = h("ul.roi-list", { "aria-label": t("rois.list", { recipe }) });
    this.enabled = h("input", { type: "checkbox", id: "roi-enabled", onchange: () => on.enable(this.enabled.checked) });
    this.copy = h("button", { onclick: on.copy }, t("rois.copy"));
    this.remove = h("button", { onclick: () => this.ask() }, icon("trash"), t("rois.remove"));
    this.tools = h("div.row", {}, h("button", { onclick: on.add }, icon("plus"), t("rois.add")), this.copy, this.remove);
    this.question = h("div.row", { role: "alert", hidden: true });
    this.changes = h("div.roi-list-tools", {}, this.tools, this.question, h("label.inline", { for: "roi-enabled" }, this.enabled, t("rois.enabled")));
    this.node = h("div.panel", {}, this.title, this.list, this.changes);
    this.shown = "";
    /** @type {LayoutRoi | null} */
    this.chosen = null;
  }

  /**
   * @param {LayoutRoi[]} rois
   * @param {LayoutRoi} chosen
   * @param {boolean} mayChange
   */
  show(rois, chosen, mayChange) {
    const text = JSON.stringify([rois.map(({ roi_id, name, enabled, roi }) => [roi_id, name, enabled, roi === null]), chosen.roi_id, mayChange, this.list.clientHeight > 0]);
    if (text === this.shown) return;
    this.shown = text;
    this.chosen = chosen;
    const isStored = rois.some((roi) => roi.roi_id === chosen.roi_id);
    fill(this.title, t("rois.title", { n: rois.length, recipe: this.recipe }));
    keepFocus(this.node, () => {
      fill(this.list, rois.map((roi) => this.item(roi, roi.roi_id === chosen.roi_id)));
      this.question.hidden = true;
      this.tools.hidden = false;
      this.copy.disabled = !chosen.roi;
      this.remove.disabled = !isStored;
    });
    this.enabled.checked = chosen.enabled !== false;
    this.changes.hidden = !mayChange;
    const current = this.list.querySelector("[aria-current=true]");
    if (current) this.list.scrollTop = current.offsetTop - this.list.clientHeight / 2;
  }

  /** @param {LayoutRoi} roi @param {boolean} isChosen */
  item(roi, isChosen) {
    const note = roi.roi === null ? t("rois.open") : roi.enabled === false ? t("rois.off") : "";
    return h("li", {}, h("button.roi-item", { "aria-current": String(isChosen), onclick: () => this.on.choose(roi) }, h("span.roi-item-name", {}, roi.name), note ? h("span.badge", {}, note) : null));
  }

  ask() {
    const no = h("button", { onclick: () => this.answer() }, t("cancel"));
    fill(this.question, h("p", {}, t("rois.ask_remove", { name: this.chosen?.name ?? "" })), h("button.primary", { onclick: () => { this.answer(); this.on.remove(); } }, t("rois.yes_remove")), no);
    this.question.hidden = false;
    this.tools.hidden = true;
    no.focus();
  }

  answer() {
    keepFocus(this.node, () => {
      this.question.hidden = true;
      this.tools.hidden = false;
    });
  }
}
