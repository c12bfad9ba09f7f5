// @ts-check
/** Whether the model that is served was fitted on what the ROI shows now. A ROI that moved since is another place. */
import { ApiError, call, idsOf } from "./api.js";
import { cutText } from "./pictures.js";

const ASKED = 4;
/** How the service names what it stores; other names are of files that a client sent for a fit. */
const STORED_NAME = /^\d{8}-\d{6}-\d{6}-[0-9a-f]{8}\./;

/**
 * @param {import("./api.js").RoiKey} key
 * @param {import("./pixels/roi.js").Roi} roi
 * @param {import("./anchor.js").Anchor | null} anchor
 * @returns {Promise<"same" | "other" | "unknown">} unknown: it was not fitted from here
 */
export async function fittedOn(key, roi, anchor) {
  const { images } = await call("bank", { query: idsOf(key) });
  const stored = images.map((/** @type {any} */ image) => image.filename).filter((/** @type {string} */ name) => STORED_NAME.test(name));
  let gone = 0;
  for (const filename of stored.slice(0, ASKED)) {
    try {
      const { console_cut } = await call("datasets/meta", { query: { ...idsOf(key), label: "ok", filename } });
      if (console_cut === undefined) return "unknown";
      return console_cut === cutText(roi, anchor) ? "same" : "other";
    } catch (problem) {
      if (!(problem instanceof ApiError && problem.status === 404)) throw problem;
      gone++; // deleted, moved, or cut anew
    }
  }
  return gone ? "other" : "unknown";
}
