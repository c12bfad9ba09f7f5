// @ts-check
/** A tile for each ROI: its verdict about the part on the screen, and its score. */
import { fill, h } from "../dom.js";
import { score, t } from "../texts.js";
import "../texts-later.js";
import { shapeOfWord } from "../verdict.js";

/** @typedef {import("../layout.js").LayoutRoi} LayoutRoi */
/** @typedef {import("../part.js").RoiVerdict} RoiVerdict */
/** @typedef {import("../verdict.js").Word} Word */

export class Tiles {
  /** @param {(roi: string) => void} onChoose by `nameOf` */
  constructor(onChoose) {
    this.onChoose = onChoose;
    this.node = h("div.tiles", { role: "list", "aria-label": t("live.rois") });
    /** @type {Map<string, {button: any, sign: any, told: any}>} */
    this.tiles = new Map();
    this.built = "";
  }

  /**
   * @param {LayoutRoi[]} rois of the recipe
   * @param {Map<string, RoiVerdict>} verdicts about the part on the screen, by `nameOf`
   * @param {string} chosen
   */
  update(rois, verdicts, chosen) {
    const built = rois.map((roi) => `${nameOf(roi)} ${roi.name}`).join("\n");
    if (built !== this.built) this.build(rois);
    this.built = built;
    for (const name of rois.map(nameOf)) {
      const tile = this.tiles.get(name);
      if (!tile) continue;
      const found = verdicts.get(name);
      const word = found?.verdict ?? "none";
      if (tile.button.dataset.word !== word) fill(tile.sign, shapeOfWord(word));
      tile.button.dataset.word = word;
      tile.button.setAttribute("aria-pressed", String(name === chosen));
      const told = toldOf(found, word);
      if (tile.told.textContent !== told) fill(tile.told, told);
    }
  }

  /** @param {LayoutRoi[]} rois */
  build(rois) {
    this.tiles.clear();
    for (const roi of rois) {
      const [sign, told] = [h("span.part-sign"), h("span.tile-told.num")];
      const button = h("button.tile", { "data-roi": roi.roi_id, onclick: () => this.onChoose(nameOf(roi)) }, sign, h("span.tile-text", {}, h("strong", {}, roi.name), told));
      this.tiles.set(nameOf(roi), { button, sign, told });
    }
    fill(this.node, [...this.tiles.values()].map(({ button }) => h("div", { role: "listitem" }, button)));
  }
}

/** @param {{role_id: string, roi_id: string, model_key: string}} roi @returns {string} one text for a ROI of the recipe */
export function nameOf({ role_id, roi_id, model_key }) {
  return [role_id, roi_id, model_key].map(encodeURIComponent).join("/");
}

/** @param {RoiVerdict | undefined} found @param {Word} word */
function toldOf(found, word) {
  const text = t(`verdict.word.${word}`);
  if (!found) return text;
  if (word === "none") return found.problem ? `${text}: ${found.problem}` : text;
  return t("live.tile", { word: text, score: score(found.reply.score), threshold: score(found.reply.threshold) });
}
