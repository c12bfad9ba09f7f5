// @ts-check
/** The parts of Inspect: a sign and a name for each, and how many got which verdict. */
import { newId } from "../api.js";
import { fill, h } from "../dom.js";
import { t } from "../texts.js";
import { shapeOfWord } from "../verdict.js";

/** @typedef {import("../keep.js").KeptPicture} KeptPicture */
/** @typedef {import("../verdict.js").Word} Word */
/** @typedef {{kept: KeptPicture, crop: import("../pixels/picture.js").Crop | null, reply: any, problem: string | null, counted: boolean, cell: any}} Part */

export class PartList {
  /** @param {(part: Part) => void} onChoose @param {(part: Part) => Word} wordOf what may be believed about a part now */
  constructor(onChoose, wordOf) {
    this.onChoose = onChoose;
    this.wordOf = wordOf;
    /** @type {Part[]} */
    this.list = [];
    this.tally = h("p.num", { role: "status" });
    this.node = h("div.parts", { role: "list", "aria-label": t("inspect.parts") });
  }

  /** A file that is no picture, or a damaged one: a part without a verdict for as long as the screen is open. @param {string} name @param {string} reason */
  refuse(name, reason) {
    const [blob, nowhere] = [new Blob(), { roi: "", file: "", pool: "", folder: "", order: 0, width: 0, height: 0 }];
    this.add({ ...nowhere, id: newId(), name, blob, label: null, stored: null, duplicateOf: null }, reason);
  }

  /** @param {KeptPicture} kept @param {string | null} [problem] why it cannot be judged */
  add(kept, problem = null) {
    /** @type {Part} */
    const part = { kept, crop: null, reply: null, problem, counted: false, cell: null };
    part.cell = h("button.part", { title: kept.name, onclick: () => this.onChoose(part) }, h("span.part-sign", {}), h("span.part-name", {}, kept.name));
    this.list.push(part);
    this.node.append(h("div", { role: "listitem" }, part.cell));
  }

  /** Show what may be believed now. @param {Part | null} current on the screen */
  update(current) {
    const n = { ok: 0, ng: 0, none: 0 };
    for (const part of this.list) {
      const word = this.wordOf(part);
      n[word]++;
      if (part.cell.dataset.word !== word) {
        part.cell.dataset.word = word;
        fill(part.cell.firstChild, shapeOfWord(word));
        part.cell.setAttribute("aria-label", t("inspect.part", { name: part.kept.name, word: t(`verdict.word.${word}`) }));
      }
      part.cell.setAttribute("aria-current", String(part === current));
    }
    fill(this.tally, this.list.length ? t("inspect.tally", n) : "");
  }

  /** @param {Part | null} part @param {number} by @returns {Part | undefined} the one beside it */
  beside(part, by) {
    return this.list[(part ? this.list.indexOf(part) : -1) + by];
  }

  empty() {
    this.list = [];
    fill(this.node);
  }
}
