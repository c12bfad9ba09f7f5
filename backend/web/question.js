// @ts-check
/** What the service is asked about a crop: the same picture, shape and scale, whether it shall judge, explain or learn. */
import { call, formOf } from "./api.js";
import { keepText, keptText } from "./keep.js";
import { shapeOf } from "./pixels/roi.js";

const PATIENCE_MS = 30000;
/** Live: a part without an answer for so long takes the verdict of the part before it from the screen. */
export const LIVE_PATIENCE_MS = 1700;
const N_PASSES = 9;

/**
 * @typedef {object} Sent
 * @property {string} name of the picture
 * @property {Blob} crop
 * @property {import("./pixels/roi.js").Shape | null} shape
 * @property {number} mm_per_px
 */

/**
 * @param {import("./pixels/roi.js").Roi | null} roi null: the picture is the ROI
 * @param {import("./pixels/picture.js").Crop} crop
 * @param {string} name of the picture
 * @param {number} mm_per_px
 * @returns {Sent}
 */
export function sentOf(roi, crop, name, mm_per_px) {
  return { name, crop: crop.blob, shape: roi && shapeOf(roi, crop), mm_per_px };
}

/**
 * @param {import("./api.js").RoiKey} key
 * @param {Sent} sent
 * @param {Parameters<typeof formOf>[1]} [fields] others
 */
export function questionAbout(key, { name, crop, shape, mm_per_px }, fields) {
  const form = formOf(key, { mm_per_px, shape: shape && JSON.stringify(shape), ...fields });
  form.append("image", crop, name);
  return form;
}

/** @returns {number[]} milliseconds of each of the last parts, for one pass of the network */
const lastPasses = () => JSON.parse(keptText("pass-ms") ?? "[]");

/**
 * Have a part judged, and keep how long that took.
 * @param {import("./api.js").RoiKey} key
 * @param {Sent} sent
 * @param {{trial: boolean, part_id: string}} part trial: the statistics of Health do not count it; part_id: which they count once
 * @param {import("./api.js").Call} options
 * @returns {Promise<any>} the reply of `/infer`
 */
export async function judge(key, sent, part, options) {
  const begun = performance.now();
  const form = questionAbout(key, sent, { heatmap: "threshold", why: true, ...part });
  const reply = await call("infer", { form, timeoutMs: PATIENCE_MS, ...options });
  const n_passes = (reply.model?.detail ?? 1) ** 2;
  keepText("pass-ms", JSON.stringify([...lastPasses(), Math.round((performance.now() - begun) / n_passes)].slice(-N_PASSES)));
  return reply;
}

/** Seconds of a part for each pass of the network; null: this browser had none judged. */
export function secondsOfPass() {
  const sorted = lastPasses().sort((a, b) => a - b);
  return sorted.length ? sorted[Math.floor(sorted.length / 2)] / 1000 : null;
}
