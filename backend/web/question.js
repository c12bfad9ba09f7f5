// @ts-check
/** What the service is asked about a crop: the same picture, shape and scale, whether it shall judge, explain or learn. */
import { formOf } from "./api.js";
import { shapeOf } from "./pixels/roi.js";

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

/** @param {import("./api.js").RoiKey} key @param {Sent} sent @param {boolean} trial the statistics of Health do not count it @param {string} part_id which they count once */
export function toJudge(key, sent, trial, part_id) {
  return questionAbout(key, sent, { heatmap: "threshold", why: true, trial, part_id });
}
