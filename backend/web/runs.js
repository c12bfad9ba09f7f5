// @ts-check
/** Long work of the service: how far it is. */
import { ApiError, call, pause } from "./api.js";
import { roiText } from "./router.js";
import { t } from "./texts.js";

/** @typedef {import("./api.js").RoiKey} RoiKey */
/** @typedef {{run_id?: string, kind: string, step: string, done: number, total: number, left_s?: number, request_id?: string} & RoiKey} Run */

export const ASK_EVERY_MS = 500;

/**
 * @param {string} kind
 * @param {RoiKey} key
 * @param {string | null} id of the request; null: any
 * @returns {Promise<Run | null | undefined>} null: there is none; undefined: the service did not say
 */
export async function findRun(kind, key, id) {
  try {
    const { runs } = await call("runs", { quiet: true, timeoutMs: 3000 });
    return runs.find((/** @type {Run} */ run) => run.kind === kind && (id ? run.request_id === id : roiText(run) === roiText(key))) ?? null;
  } catch (problem) {
    if (problem instanceof ApiError) return undefined; // the work itself tells what is wrong
    throw problem;
  }
}

/** How long a step still takes, where that is known. @param {Run} run */
export const leftOf = ({ left_s }) => (left_s ? t("fit.left", { n: left_s }) : "");

/**
 * Tell how far a run is until it ends.
 * @param {string} kind
 * @param {RoiKey} key
 * @param {string} id
 * @param {(run: Run) => void} onRun
 * @param {() => boolean} goesOn
 */
export async function watchRun(kind, key, id, onRun, goesOn) {
  while (goesOn()) {
    const run = await findRun(kind, key, id);
    if (run) onRun(run);
    await pause(ASK_EVERY_MS);
  }
}
