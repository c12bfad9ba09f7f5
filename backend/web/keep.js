// @ts-check
/**
 * What this browser keeps: pictures that are not, or not only, in the service. A reload loses none of them.
 *
 * A picture of a camera shows every ROI of a recipe, so its file is kept once, in the pool of the recipe. What a person says of it, and
 * where its crop is in the service, is kept for each ROI.
 */
import { Database } from "./database.js";

const PICTURES = "pictures";
const FILES = "files";

/**
 * A picture of a camera, as it was dropped.
 * @typedef {object} KeptFile
 * @property {string} file
 * @property {string} pool see `poolOf`
 * @property {string} name of the file
 * @property {string} folder in which it lay; empty where that is not known
 * @property {number} order of arrival
 * @property {Blob} blob the file
 * @property {number} width pixels
 * @property {number} height pixels
 */
/**
 * What is known of it as a sample of a ROI.
 * @typedef {object} KeptSample
 * @property {string} id
 * @property {string} roi see `roiText`
 * @property {string} file
 * @property {"ok" | "ng" | null} label
 * @property {{label: "ok" | "ng", filename: string, cut: string} | null} stored where its crop is in the service, and how it was cut
 * @property {string | null} duplicateOf name of a picture with the same pixels
 */
/** @typedef {KeptFile & KeptSample} KeptPicture */

const database = new Database("roi-anomaly-console", 2, (made) => {
  made.createObjectStore(PICTURES, { keyPath: "id" }).createIndex("roi", "roi");
  made.createObjectStore(FILES, { keyPath: "file" }).createIndex("pool", "pool");
});

/**
 * @template T
 * @param {IDBTransactionMode} mode
 * @param {(samples: IDBObjectStore, files: IDBObjectStore) => T} work
 */
const transact = (mode, work) => database.transact([PICTURES, FILES], mode, work);

/**
 * Every picture of a pool, as a ROI knows it. Those that it does not know yet are undecided.
 * @param {string} pool
 * @param {string} roi
 * @param {() => string} newId
 * @returns {Promise<KeptPicture[]>} in the order in which they came
 */
export async function keptPictures(pool, roi, newId) {
  const [files, samples] = await transact("readonly", (samples, files) => [files.index("pool").getAll(pool), samples.index("roi").getAll(roi)]);
  /** @type {Map<string, KeptSample>} */
  const known = new Map(samples.result.map((/** @type {KeptSample} */ sample) => [sample.file, sample]));
  const found = files.result.map((/** @type {KeptFile} */ file) => ({ ...file, ...(known.get(file.file) ?? { id: newId(), roi, label: null, stored: null, duplicateOf: null }) }));
  return found.sort((/** @type {KeptPicture} */ a, /** @type {KeptPicture} */ b) => a.order - b.order);
}

/** Texts for which this browser has no room: they last as long as the page. @type {Map<string, string>} */
const unkept = new Map();

/** Keep a text across reloads. @param {string} name @param {string} text @returns {boolean} whether this browser has room */
export function keepText(name, text) {
  try {
    localStorage.setItem(name, text);
    unkept.delete(name);
  } catch (problem) {
    if (/** @type {DOMException} */ (problem).name !== "QuotaExceededError") throw problem;
    unkept.set(name, text);
  }
  return !unkept.has(name);
}

/** @param {string} name */
export const keptText = (name) => unkept.get(name) ?? localStorage.getItem(name);

/** @param {string} name */
export function forgetText(name) {
  unkept.delete(name);
  localStorage.removeItem(name);
}

/** @param {KeptPicture[]} pictures new ones */
export async function keepPictures(pictures) {
  await transact("readwrite", (samples, files) => {
    for (const { file, pool, name, folder, order, blob, width, height, ...sample } of pictures) {
      files.put({ file, pool, name, folder, order, blob, width, height });
      samples.put({ ...sample, file });
    }
  });
}

/** What a ROI knows of a picture has changed. @param {KeptPicture} picture */
export async function keepSample({ id, roi, file, label, stored, duplicateOf }) {
  await transact("readwrite", (samples) => {
    samples.put({ id, roi, file, label, stored, duplicateOf });
  });
}

/** @param {KeptPicture[]} pictures */
export async function forgetPictures(pictures) {
  await transact("readwrite", (samples, files) => {
    for (const { id, file } of pictures) {
      samples.delete(id);
      files.delete(file);
    }
  });
}
