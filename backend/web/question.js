// @ts-check
/** What the service is asked about a crop: the same picture, shape and scale, whether it shall judge, explain or learn. */
import { call, formOf } from "./api.js";
import { shapeOf } from "./pixels/roi.js";

const PATIENCE_MS = 30000;

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

/**
 * @param {import("./api.js").RoiKey} key
 * @param {Sent} sent
 * @param {{trial: boolean, part_id: string}} part trial: the statistics of Health do not count it; part_id: which they count once
 * @param {import("./api.js").Call} options
 * @returns {Promise<any>} the reply of `/infer`
 */
export function judge(key, sent, part, options) {
  const form = questionAbout(key, sent, { heatmap: "threshold", why: true, ...part });
  return call("infer", { form, timeoutMs: PATIENCE_MS, ...options });
}
