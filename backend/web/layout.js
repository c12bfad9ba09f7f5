// @ts-check
/** Where the ROIs of a recipe lie in the picture: the layout, which the service keeps for every station. */
import { ApiError, arrived, send } from "./api.js";

/** @typedef {import("./pixels/roi.js").Roi} Roi */
/**
 * @typedef {object} LayoutRoi
 * @property {string} role_id
 * @property {string} roi_id
 * @property {string} model_key
 * @property {string} name for people
 * @property {number} mm_per_px
 * @property {Roi | null} roi centre in pixels of the picture; null: not drawn yet
 * @property {{width: number, height: number} | null} picture size of the pictures in which it was drawn
 * @property {boolean} [enabled] false: it is not judged
 */
/** @typedef {import("./anchor.js").Anchor} Anchor */
/** @typedef {{format: string, version: number, rois: LayoutRoi[], anchor?: Anchor, gui_layout?: {file: string, layout: Record<string, any>}}} Layout gui_layout: the desktop GUI's file that was opened */
/** @typedef {LayoutRoi & {recipe_id: string, anchor: Anchor | null}} DrawnRoi what a crop depends on */

export const FORMAT = "roi-anomaly-console";
const ROLE = "Inspection";

/** Another station changed the same ROI meanwhile. */
export class LayoutConflict extends Error {
  /** @param {LayoutRoi | null} theirs null: it was deleted */
  constructor(theirs) {
    super("the layout was changed elsewhere");
    this.name = "LayoutConflict";
    this.theirs = theirs;
  }
}

/**
 * @param {string} recipe
 * @returns {Promise<{content: Layout, etag: string | null}>} an empty one where there is none
 */
export async function loadLayout(recipe) {
  return /** @type {{content: Layout, etag: string | null}} */ (await readLayout(recipe, {}));
}

/**
 * The layout, unless it is still the one that is known.
 * @param {string} recipe
 * @param {import("./api.js").Call & {etag?: string | null}} options etag: of the one that is known
 * @returns {Promise<{content: Layout, etag: string | null} | null>} null: it is still that one
 */
export async function readLayout(recipe, { etag: known, ...options }) {
  try {
    const reply = await send("layout", { ...options, query: { recipe_id: recipe }, headers: known ? { "If-None-Match": known } : {} });
    const content = await arrived(reply.json(), options, reply.status);
    const etag = reply.headers.get("ETag");
    return { content: content.format === FORMAT ? content : { ...content, format: FORMAT, version: 1, rois: [] }, etag };
  } catch (problem) {
    if (!(problem instanceof ApiError)) throw problem;
    if (problem.status === 304) return null;
    if (problem.status !== 404) throw problem;
    return { content: { format: FORMAT, version: 1, rois: [] }, etag: null };
  }
}

/** @param {Layout} content @param {import("./api.js").RoiKey} key of the layout's recipe @returns {LayoutRoi | null} null: it is not in it */
export function roiIn(content, key) {
  return content.rois.find((roi) => isSame(roi, key)) ?? null;
}

/** @param {Layout} content @param {import("./api.js").RoiKey} key of the layout's recipe @returns {DrawnRoi | null} null: it is not in it */
export function drawnIn(content, key) {
  const roi = roiIn(content, key);
  return roi && { ...roi, recipe_id: key.recipe_id, anchor: content.anchor ?? null };
}

/**
 * Store one ROI of a layout, whatever happened to the others meanwhile.
 * @param {string} recipe
 * @param {LayoutRoi} mine
 * @param {LayoutRoi | null} base what it was before the change; null: new
 * @throws {LayoutConflict} somebody else changed this very ROI since
 */
export async function saveRoi(recipe, mine, base) {
  await writeLayout(recipe, (content) => {
    const at = content.rois.findIndex((roi) => isSame(roi, mine));
    const theirs = at < 0 ? null : content.rois[at];
    if (JSON.stringify(theirs) !== JSON.stringify(base) && JSON.stringify(theirs) !== JSON.stringify(mine))
      throw new LayoutConflict(theirs);
    return { ...content, rois: at < 0 ? [...content.rois, mine] : content.rois.with(at, mine) };
  });
}

/**
 * Add a ROI under ids that nothing has yet.
 * @param {string} recipe
 * @param {Omit<LayoutRoi, "role_id" | "roi_id" | "model_key">} roi
 * @param {Set<string>} taken `roi_id`s of all recipes: else a recipe without a model of its own would be served that of the default recipe
 * @returns {Promise<LayoutRoi>}
 */
export async function addRoi(recipe, roi, taken) {
  /** @type {LayoutRoi | null} */
  let added = null;
  await writeLayout(recipe, (content) => {
    added = { ...freshIds(new Set([...taken, ...content.rois.map(({ roi_id }) => roi_id)])), ...roi };
    return { ...content, rois: [...content.rois, added] };
  });
  return /** @type {LayoutRoi} */ (/** @type {unknown} */ (added));
}

/** @param {Set<string>} taken `roi_id`s @returns {{role_id: string, roi_id: string, model_key: string}} */
export function freshIds(taken) {
  let number = 1;
  while (taken.has(`inspection-${number}`)) number++;
  return { role_id: ROLE, roi_id: `inspection-${number}`, model_key: `inspection-${number}` };
}

/**
 * @param {string} recipe
 * @param {LayoutRoi} base the ROI as it is known here
 * @throws {LayoutConflict} somebody else changed it since
 */
export async function removeRoi(recipe, base) {
  await writeLayout(recipe, (content) => {
    const theirs = content.rois.find((roi) => isSame(roi, base)) ?? null;
    if (theirs && JSON.stringify(theirs) !== JSON.stringify(base)) throw new LayoutConflict(theirs);
    return { ...content, rois: content.rois.filter((roi) => roi !== theirs) };
  });
}

/**
 * All ROIs of a recipe have one scale.
 * @param {string} recipe
 * @param {number} mm_per_px
 */
export async function saveScale(recipe, mm_per_px) {
  await writeLayout(recipe, (content) => ({ ...content, rois: content.rois.map((roi) => ({ ...roi, mm_per_px })) }));
}

/**
 * Change a layout and store it, anew where another station was faster.
 * @param {string} recipe
 * @param {(content: Layout) => Layout} change may throw, and nothing is stored
 */
export async function writeLayout(recipe, change) {
  for (;;) {
    const { content, etag } = await loadLayout(recipe);
    try {
      await send("layout", {
        method: "PUT",
        query: { recipe_id: recipe },
        json: change(content),
        headers: etag ? { "If-Match": etag } : { "If-None-Match": "*" },
      });
      return;
    } catch (problem) {
      if (!(problem instanceof ApiError && problem.status === 412)) throw problem; // 412: look again, and merge
    }
  }
}

/** Whether two ROIs of one recipe are the same one. @param {LayoutRoi} a @param {{role_id: string, roi_id: string, model_key: string}} b */
export function isSame(a, b) {
  return a.role_id === b.role_id && a.roi_id === b.roi_id && a.model_key === b.model_key;
}
