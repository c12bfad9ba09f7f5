// @ts-check
/** The pictures of a recipe in this browser, as a ROI knows them: opened when they are needed, looked at in small, cut exactly. */
import { placed, placementIn } from "./anchor.js";
import { newId } from "./api.js";
import { forgetPictures, keepPictures, keepSample, keptPictures } from "./keep.js";
import { cutRoi, openPicture, viewOf } from "./pixels/picture.js";
import { wholeOf } from "./pixels/roi-edit.js";
import { roiText } from "./router.js";
import { messageOf, t } from "./texts.js";

/** @typedef {import("./pixels/roi.js").Roi} Roi */
/** @typedef {import("./pixels/picture.js").Picture} Picture */
/** @typedef {import("./keep.js").KeptPicture} KeptPicture */
/** @typedef {import("./ingest.js").Found} Found */
/** @typedef {{added: KeptPicture[], known: KeptPicture[], refused: {name: string, reason: string}[]}} Added */

const SMALL_PIXELS = 480;
const WRITTEN_AT_ONCE = 12;
/** What was opened last stays open: a picture that was just dropped is cut next. */
const OPEN_AT_ONCE = 24;

export class PictureSet {
  /**
   * @param {import("./api.js").RoiKey} roi
   * @param {string} [shelf] pictures for another purpose than to be samples
   */
  constructor(roi, shelf = "") {
    this.roi = roiText(roi) + shelf;
    /** All ROIs of a recipe share its pictures; those for another purpose are a ROI's own. */
    this.pool = shelf ? this.roi : this.roi.split("/")[0];
    /** @type {KeptPicture[]} */
    this.list = [];
    /** @type {Promise<KeptPicture[]> | null} */
    this.loaded = null;
    /** By file. @type {Map<string, Promise<Picture>>} */
    this.opened = new Map();
    /** By file. @type {Map<string, Promise<ImageBitmap>>} */
    this.small = new Map();
  }

  /** Read what this browser keeps. @returns {Promise<KeptPicture[]>} */
  load() {
    this.loaded ??= keptPictures(this.pool, this.roi, newId).then((list) => (this.list = list));
    return this.loaded;
  }

  /** The same pictures, as another ROI of the recipe knows them. @param {import("./api.js").RoiKey} roi @returns {Promise<KeptPicture[]>} */
  turnTo(roi) {
    this.roi = roiText(roi);
    this.loaded = null;
    return this.load();
  }

  /**
   * Keep files as pictures of the ROI; those that are there already are passed over.
   * @param {Found[]} found
   * @param {(done: number, total: number) => void} onProgress
   * @param {(some: KeptPicture[]) => void} [onAdded] a few at a time, the first one at once
   * @returns {Promise<Added>}
   */
  async add(found, onProgress, onAdded = () => undefined) {
    /** @type {Added} */
    const result = { added: [], known: [], refused: [] };
    await this.load();
    /** @type {Map<string, KeptPicture[]>} */
    const alike = new Map();
    for (const picture of this.list) {
      const text = `${picture.folder}/${picture.name}/${picture.blob.size}`;
      alike.set(text, [...(alike.get(text) ?? []), picture]);
    }
    let order = Math.max(0, ...this.list.map((picture) => picture.order));
    /** @type {KeptPicture[]} */
    let batch = [];
    for (const [index, { file, folder }] of found.entries()) {
      onProgress(index, found.length);
      try {
        const known = await sameOf(file, alike.get(`${folder}/${file.name}/${file.size}`) ?? []);
        if (known) {
          result.known.push(known);
          continue;
        }
        // A copy: the file on the disk may be changed, moved or deleted while the browser still refers to it.
        const blob = new Blob([await file.arrayBuffer()], { type: file.type });
        const picture = await openPicture(blob, { name: file.name });
        const { width, height } = picture;
        const kept = newId();
        this.keepOpen(kept, Promise.resolve(picture));
        batch.push({ id: newId(), roi: this.roi, file: kept, pool: this.pool, name: file.name, folder, order: ++order, blob, width, height, label: null, stored: null, duplicateOf: null });
      } catch (problem) {
        result.refused.push({ name: file.name, reason: messageOf(problem) });
      }
      if (batch.length >= Math.min(WRITTEN_AT_ONCE, 1 + result.added.length)) await this.write(batch.splice(0), result, onAdded);
    }
    await this.write(batch, result, onAdded);
    return result;
  }

  /** @param {KeptPicture[]} batch @param {Added} result @param {(some: KeptPicture[]) => void} onAdded */
  async write(batch, result, onAdded) {
    if (!batch.length) return;
    await keepPictures(batch);
    this.list.push(...batch);
    result.added.push(...batch);
    onAdded(batch);
  }

  /** @param {string} id @param {Promise<Picture>} opened */
  keepOpen(id, opened) {
    this.opened.delete(id);
    this.opened.set(id, opened);
    const [oldest] = this.opened.keys();
    if (this.opened.size > OPEN_AT_ONCE) this.opened.delete(oldest);
  }

  /**
   * Change what is known of a picture; it is on the disk when this is done.
   * @param {KeptPicture} picture
   * @param {Partial<KeptPicture>} change
   */
  async change(picture, change) {
    Object.assign(picture, change);
    await keepSample(picture);
  }

  /** @param {KeptPicture[]} pictures */
  async forget(pictures) {
    await forgetPictures(pictures);
    this.list = this.list.filter((picture) => !pictures.includes(picture));
  }

  /** @param {KeptPicture} kept @returns {Promise<Picture>} */
  open(kept) {
    const found = this.opened.get(kept.file) ?? openPicture(kept.blob, { name: kept.name });
    this.keepOpen(kept.file, found);
    return found;
  }

  /** @param {KeptPicture} kept @returns {Promise<ImageBitmap>} the whole picture, small: to look at, never to be judged */
  smallOf(kept) {
    const found = this.small.get(kept.file) ?? this.shrink(kept);
    this.small.set(kept.file, found);
    return found;
  }

  /** @param {KeptPicture} kept */
  async shrink(kept) {
    const picture = await this.open(kept);
    const scale = Math.min(1, SMALL_PIXELS / Math.max(picture.width, picture.height));
    const box = { x: 0, y: 0, width: picture.width, height: picture.height };
    return viewOf(picture, box, Math.max(1, Math.round(box.width * scale)), Math.max(1, Math.round(box.height * scale)));
  }

  /**
   * The crop of a ROI, exactly as it is judged.
   * @param {KeptPicture} kept
   * @param {import("./layout.js").DrawnRoi | null} drawn null, or without a ROI: pictures are the ROI
   * @throws the picture is of another size than those in which the ROI was drawn, or cannot be cut
   */
  async cut(kept, drawn) {
    return cutDrawn(await this.open(kept), drawn);
  }

  /** Give the small pictures back. */
  close() {
    for (const bitmap of this.small.values()) bitmap.then((found) => found.close(), () => undefined);
    this.small.clear();
    this.opened.clear();
  }
}

/**
 * The crop of a ROI, exactly as it is judged.
 * @param {Picture} picture
 * @param {import("./layout.js").DrawnRoi | null} drawn null, or without a ROI: the picture is the ROI
 * @throws the picture is of another size than those in which the ROI was drawn, cannot be cut, or the anchor is not found in it
 */
export async function cutDrawn(picture, drawn) {
  if (!drawn?.roi) return cutRoi(picture, wholeOf(picture));
  const usual = drawn.picture;
  if (usual && (picture.width !== usual.width || picture.height !== usual.height))
    throw new Error(t("inspect.other_size", { name: picture.name, width: picture.width, height: picture.height, usual_width: usual.width, usual_height: usual.height }));
  const { anchor } = drawn;
  return cutRoi(picture, anchor ? placed(drawn.roi, anchor, await placementIn(picture, drawn.recipe_id, anchor)) : drawn.roi);
}

/**
 * The picture that has the bytes of a file. A camera may write each part over the one before: the same name and, as a BMP, the same size.
 * @param {File} file
 * @param {KeptPicture[]} alike of its name and size
 * @returns {Promise<KeptPicture | null>}
 */
async function sameOf(file, alike) {
  for (const kept of alike) {
    const [one, other] = await Promise.all([file.arrayBuffer(), kept.blob.arrayBuffer()]);
    if (indexedDB.cmp(one, other) === 0) return kept;
  }
  return null;
}

/**
 * The size that most pictures have.
 * @param {{width: number, height: number}[]} pictures
 * @returns {{width: number, height: number} | null}
 */
export function usualSize(pictures) {
  /** @type {Map<string, {n: number, width: number, height: number}>} */
  const sizes = new Map();
  for (const { width, height } of pictures) {
    const text = `${width}x${height}`;
    const size = sizes.get(text) ?? { n: 0, width, height };
    size.n++;
    sizes.set(text, size);
  }
  const [first] = [...sizes.values()].sort((a, b) => b.n - a.n);
  return first ? { width: first.width, height: first.height } : null;
}

/**
 * How something was cut, to tell whether it must be cut again.
 * @param {Roi} roi
 * @param {import("./anchor.js").Anchor | null} anchor
 * @returns {string}
 */
export function cutText({ kind, cx, cy, w, h, r, r_inner, angle_deg, crop }, anchor) {
  const drawn = kind === "rect" ? [kind, cx, cy, w, h, angle_deg] : [kind, cx, cy, r, r_inner, angle_deg];
  return JSON.stringify([...drawn, ...(crop ? [crop] : []), ...(anchor ? [anchor.id] : [])]);
}
