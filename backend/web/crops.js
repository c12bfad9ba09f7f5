// @ts-check
/** Crops of one ROI out of pictures of this browser: each is cut once, where need be before it is asked for. */
import { loadLayout, drawnIn } from "./layout.js";

/** @typedef {import("./keep.js").KeptPicture} KeptPicture */
/** @typedef {import("./pixels/picture.js").Crop} Crop */

export class Crops {
  /** @param {import("./pictures.js").PictureSet} set @param {import("./api.js").RoiKey} key */
  constructor(set, key) {
    this.set = set;
    this.key = key;
    /** @type {import("./layout.js").DrawnRoi | null} */
    this.drawn = null;
    /** @type {Map<string, Promise<Crop>>} */
    this.cuts = new Map();
  }

  /** Learn where the ROI is. @returns {Promise<boolean>} whether it is elsewhere than before: no crop is right any more */
  async locate() {
    const { content } = await loadLayout(this.key.recipe_id);
    const drawn = drawnIn(content, this.key);
    const isElsewhere = JSON.stringify(drawn) !== JSON.stringify(this.drawn);
    if (isElsewhere) this.cuts.clear();
    this.drawn = drawn;
    return isElsewhere;
  }

  /** @param {KeptPicture} kept @returns {Promise<Crop>} @throws it cannot be cut */
  of(kept) {
    const found = this.cuts.get(kept.id) ?? this.set.cut(kept, this.drawn);
    this.cuts.set(kept.id, found);
    return found;
  }

  /** Cut it while there is nothing else to do. What is wrong with it, `of` says. @param {KeptPicture} kept */
  prepare(kept) {
    this.of(kept).catch(() => undefined);
  }
}
