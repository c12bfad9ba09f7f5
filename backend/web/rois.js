// @ts-check
/** The ROIs that there are, from the service and from the layouts, and what is to be done next about each. */
import { call } from "./api.js";
import { loadLayout } from "./layout.js";
import { roiText } from "./router.js";

/** @typedef {import("./api.js").RoiKey} RoiKey */
/** @typedef {import("./layout.js").LayoutRoi} LayoutRoi */
/** @typedef {"draw" | "label" | "fit" | "refit" | "threshold" | "drift" | "inspect"} Step */
/**
 * @typedef {RoiKey & {
 *   name: string, drawn: LayoutRoi | null, fitted: boolean, borrowed: boolean, calibration: "none" | "applied" | "stale",
 *   refit: boolean, threshold: number | null, n_ok: number, n_ng: number, drifts: boolean, memory_id: string | null,
 *   mm_per_px: number | null, locked: number | null, problem: string | null, detail: number
 * }} RoiFacts
 */

/** What a fit takes where the service does not say otherwise. */
export const LEAST_GOOD = 10;

/**
 * @param {string} [recipe] only its own
 * @returns {Promise<RoiFacts[]>} by recipe and name
 */
export async function listRois(recipe) {
  const known = await call("rois", { query: { limit: 1000, recipe_id: recipe } });
  /** @type {Map<string, RoiFacts>} */
  const found = new Map(known.rois.map((/** @type {any} */ roi) => [roiText(roi), factsOf(roi)]));
  const recipes = recipe === undefined ? known.recipes : [recipe.normalize("NFC").toLowerCase().trim()]; // as the service has it
  for (const recipe_id of recipes) {
    const { content } = await loadLayout(recipe_id);
    for (const { role_id, roi_id, model_key, ...drawn } of content.rois) {
      const key = { recipe_id, role_id, roi_id, model_key };
      const facts = ownOf(found.get(roiText(key)) ?? factsOf(key));
      found.set(roiText(key), { ...facts, name: drawn.name, drawn: { role_id, roi_id, model_key, ...drawn }, mm_per_px: facts.mm_per_px ?? drawn.mm_per_px });
    }
  }
  return [...found.values()].sort((a, b) => a.recipe_id.localeCompare(b.recipe_id) || a.name.localeCompare(b.name, [], { numeric: true }));
}

/**
 * A recipe without a model of its own is served the default recipe's. That one knows another product: a ROI that was drawn here
 * is not fitted by it.
 * @param {RoiFacts} facts
 * @returns {RoiFacts}
 */
function ownOf(facts) {
  return facts.borrowed ? { ...facts, fitted: false, refit: false, calibration: "none", threshold: null, memory_id: null, detail: 1, drifts: false } : facts;
}

/** @param {any} roi an entry of `/rois`, or the ids of a ROI that the service has nothing of @returns {RoiFacts} */
function factsOf(roi) {
  return {
    role_id: roi.role_id,
    roi_id: roi.roi_id,
    recipe_id: roi.recipe_id,
    model_key: roi.model_key,
    name: roi.roi_id,
    drawn: null,
    fitted: roi.fitted ?? false,
    borrowed: roi.model !== undefined && roi.model.recipe_id !== roi.recipe_id,
    refit: roi.status === "refit_needed",
    problem: roi.error ?? roi.reason ?? null,
    calibration: roi.calibration ?? "none",
    threshold: roi.threshold ?? null,
    memory_id: roi.model?.memory_id ?? null,
    detail: roi.model?.detail ?? 1,
    n_ok: roi.n_images?.ok ?? 0,
    n_ng: roi.n_images?.ng ?? 0,
    drifts: roi.drift === "drift",
    mm_per_px: roi.mm_per_px ?? null,
    locked: roi.mm_per_px ?? null,
  };
}

/**
 * Millimetres per pixel that a recipe is bound to by what is stored of any of its ROIs.
 * @param {RoiFacts[] | null} rois
 * @param {string} recipe
 * @returns {number | null}
 */
export function lockedScale(rois, recipe) {
  return rois?.find((roi) => roi.recipe_id.toLowerCase() === recipe.toLowerCase() && roi.locked !== null)?.locked ?? null;
}

/**
 * What to do next about a ROI.
 * @param {RoiFacts} roi
 * @returns {Step}
 */
export function nextStep(roi) {
  if (roi.refit) return "refit";
  if (roi.fitted) {
    if (roi.calibration !== "applied") return "threshold";
    return roi.drifts ? "drift" : "inspect";
  }
  if (roi.n_ok >= LEAST_GOOD) return "fit";
  return roi.drawn?.roi || roi.n_ok ? "label" : "draw";
}

/** The screen on which a step is done. @type {Record<Step, import("./router.js").ScreenName>} */
export const SCREEN_OF = {
  draw: "roi",
  label: "samples",
  fit: "samples",
  refit: "samples",
  threshold: "threshold",
  drift: "health",
  inspect: "inspect",
};
