// @ts-check
/** Where the part of each picture is, by the anchor: looked for once, when somebody looks at the picture. */
import { AnchorError, bestPlacement, doubtOf, placed } from "../anchor.js";
import { fixed, t } from "../texts.js";

/** @typedef {import("../anchor.js").Anchor} Anchor */
/** @typedef {import("../anchor.js").Placement} Placement */
/** @typedef {import("../keep.js").KeptPicture} KeptPicture */
/** @typedef {import("../pixels/roi.js").Roi} Roi */
/** @typedef {{placement: Placement | null, doubt: string | null}} Place doubt: why it must not be believed */

/** Where a part is, in words. @param {Placement} placement */
export function toldOf({ score, dx, dy, angle_deg }) {
  const tenths = (/** @type {number} */ value) => fixed(Math.round(10 * value) / 10 || 0, 1); // || 0: never -0
  return t("anchor.moved", { score: fixed(score, 2), dx: tenths(dx), dy: tenths(dy), angle: tenths(angle_deg) });
}

export class Places {
  /**
   * @param {string} recipe
   * @param {import("../pictures.js").PictureSet} set
   * @param {() => void} onFound
   */
  constructor(recipe, set, onFound) {
    this.recipe = recipe;
    this.set = set;
    this.onFound = onFound;
    /** @type {Anchor | null} */
    this.anchor = null;
    /** By file. @type {Map<string, Place>} */
    this.known = new Map();
  }

  /** @param {Anchor | null} anchor @returns {boolean} whether it is another one */
  use(anchor) {
    if (JSON.stringify(anchor) === JSON.stringify(this.anchor)) return false;
    this.anchor = anchor;
    this.known.clear();
    return true;
  }

  /** @param {KeptPicture} kept @returns {Promise<Place | null>} null: there is no anchor */
  async look(kept) {
    const { anchor } = this;
    if (!anchor) return null;
    const known = this.known.get(kept.file);
    if (known) return known;
    const found = await this.search(kept, anchor);
    if (this.anchor !== anchor) return this.look(kept); // another one was drawn meanwhile
    this.known.set(kept.file, found);
    this.onFound();
    return found;
  }

  /** @param {KeptPicture} kept @param {Anchor} anchor @returns {Promise<Place>} */
  async search(kept, anchor) {
    try {
      const placement = await bestPlacement(await this.set.open(kept), this.recipe, anchor);
      return { placement, doubt: doubtOf(placement, anchor) };
    } catch (problem) {
      if (!(problem instanceof AnchorError)) throw problem;
      return { placement: null, doubt: problem.message };
    }
  }

  /** A ROI where the part of a picture is, as far as that is known. @param {Roi} roi @param {KeptPicture} kept @returns {Roi} */
  roiIn(roi, kept) {
    const known = this.known.get(kept.file);
    return this.anchor && known?.placement && !known.doubt ? placed(roi, this.anchor, known.placement) : roi;
  }

  /** @param {KeptPicture} kept @returns {string | null} */
  doubtAbout(kept) {
    return this.known.get(kept.file)?.doubt ?? null;
  }

  /** @returns {import("./roi-anchor.js").Tally} */
  get tally() {
    const found = [...this.known.values()].filter(({ doubt }) => doubt === null);
    return { n: this.known.size, found: found.length, lowest: Math.min(1, ...found.map(({ placement }) => placement?.score ?? 1)) };
  }
}
