// @ts-check
/** The last fifty parts: a sign and a name for each, to be looked at again. Older ones are let go, pictures and all. */
import { h } from "../dom.js";
import { pngOf } from "../heat.js";
import { t } from "../texts.js";
import "../texts-later.js";
import { shapeOfWord } from "../verdict.js";

/** @typedef {import("../loop.js").Judged} Judged */
/** @typedef {import("../verdict.js").Word} Word */
/** @typedef {Judged & {word: Word, cell: any}} LivePart word: as it was judged then */

const MOST = 50;

export class LastParts {
  /** @param {(part: LivePart) => void} onChoose */
  constructor(onChoose) {
    this.onChoose = onChoose;
    /** @type {LivePart[]} the newest is the first */
    this.list = [];
    this.node = h("div.parts", { role: "list", "aria-label": t("live.last") });
  }

  /** @param {Judged} judged @returns {LivePart} */
  add(judged) {
    const { name } = judged.frame;
    const word = judged.part.verdict;
    for (const { reply } of judged.part.rois) if (reply) pack(reply);
    /** @type {LivePart} */
    const part = { ...judged, word, cell: null };
    part.cell = h(
      "button.part",
      { title: word === "none" ? `${name}: ${judged.part.reason}` : name, "data-name": name, "data-word": word, "aria-label": t("inspect.part", { name, word: t(`verdict.word.${word}`) }), onclick: () => this.onChoose(part) },
      h("span.part-sign", {}, shapeOfWord(word)),
      h("span.part-name", {}, judged.frame.label ?? name),
    );
    this.list.unshift(part);
    this.node.prepend(h("div", { role: "listitem" }, part.cell));
    if (this.list.length > MOST) {
      this.list.pop();
      this.node.lastChild?.remove();
    }
    return part;
  }

  /** @param {LivePart | null} shown */
  mark(shown) {
    for (const part of this.list) part.cell.setAttribute("aria-current", String(part === shown));
  }

  /** @param {LivePart | null} part @param {number} by @returns {LivePart | null} the one beside it */
  beside(part, by) {
    const at = part ? this.list.indexOf(part) : -1;
    return this.list[at + by] ?? null;
  }
}

/** Fifty parts with many ROIs are many heatmaps: as text they would be the most of what a page holds. @param {any} reply of `/infer` */
function pack(reply) {
  if (!reply.heatmap_png_base64) return;
  reply.heatmap = pngOf(reply.heatmap_png_base64);
  delete reply.heatmap_png_base64;
}
