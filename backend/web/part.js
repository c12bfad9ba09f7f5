// @ts-check
/**
 * The verdict about a whole part: every ROI of the recipe is cut out of one picture and judged.
 *
 *     const guard = new RecipeGuard(recipe, () => show(partVerdict(part, guard)));
 *     guard.start();
 *     const part = await judgePart(guard, await openPicture(file), { signal, isTest: true });
 *
 * A part is NG if any ROI is NG, and OK only if all of them answered OK. A verdict holds for as long as `partVerdict` says so: ask
 * it again whenever the guard calls.
 */
import { AnchorError, placementIn } from "./anchor.js";
import { ApiError, call, formOf } from "./api.js";
import { shapeOf } from "./pixels/picture.js";
import { cutDrawn } from "./pictures.js";
import { messageOf, t } from "./texts.js";
import { verdictOf } from "./verdict.js";

/** @typedef {import("./layout.js").LayoutRoi} LayoutRoi */
/** @typedef {import("./pixels/picture.js").Picture} Picture */
/** @typedef {import("./pixels/picture.js").Crop} Crop */
/** @typedef {import("./recipe-guard.js").RecipeGuard} RecipeGuard */
/** @typedef {import("./verdict.js").Word} Word */
/**
 * @typedef {object} RoiVerdict
 * @property {LayoutRoi} roi
 * @property {Word} verdict
 * @property {string} reason why it was not judged
 * @property {any} reply of `/infer`; null: there is none
 * @property {Crop | null} crop what was sent
 * @property {string | null} problem why it could not be judged, whatever is served
 */
/**
 * @typedef {object} Part
 * @property {Word} verdict
 * @property {string} reason why it was not judged
 * @property {import("./anchor.js").Placement | null} placement where the part is, also where that is in doubt; null: there is no anchor
 * @property {string | null} lost why nobody knows where the part is
 * @property {string | null} etag of the layout by which it was cut
 * @property {RoiVerdict[]} rois in the order of the layout
 */

const PATIENCE_MS = 30000;

/**
 * Judge every ROI of the recipe in one picture. While the service judges one ROI, the next is cut.
 * @param {RecipeGuard} guard started
 * @param {Picture} picture
 * @param {{signal?: AbortSignal, isTest: boolean}} how isTest: the statistics of Health do not count it
 * @returns {Promise<Part>}
 * @throws the signal's reason
 */
export async function judgePart(guard, picture, { signal, isTest }) {
  await guard.learnt(signal);
  const { rois, etag } = guard;
  /** @type {Part} */
  const part = { verdict: "none", reason: "", etag, rois: [], ...(await placementOf(guard, picture)) };
  if (part.lost) return { ...part, ...partVerdict(part, guard) };
  let next = rois.length ? prepared(guard, picture, rois[0]) : null;
  for (let at = 0; next; at++) {
    const ready = await next;
    signal?.throwIfAborted();
    next = at + 1 < rois.length ? prepared(guard, picture, rois[at + 1]) : null;
    part.rois.push(await judged(guard, ready, picture.name, isTest, signal));
  }
  return { ...part, ...partVerdict(part, guard) };
}

/**
 * What may be believed about a part now.
 * @param {Part} part its ROIs get their verdicts anew, too
 * @param {RecipeGuard} guard
 * @returns {{verdict: Word, reason: string}}
 */
export function partVerdict(part, guard) {
  for (const roi of part.rois) {
    const { word, reason } = verdictOf({
      blocked: null,
      doubt: guard.doubt(),
      hasPicture: true,
      judging: false,
      problem: roi.problem ?? (part.etag === guard.etag ? null : t("part.layout_changed")),
      reply: roi.reply,
      confirmed: roi.reply !== null && guard.confirms(roi.roi, roi.reply),
    });
    Object.assign(roi, { verdict: word, reason });
  }
  const open = part.rois.filter(({ verdict }) => verdict === "none");
  if (part.rois.some(({ verdict }) => verdict === "ng")) return { verdict: "ng", reason: "" };
  if (part.rois.length && !open.length) return { verdict: "ok", reason: "" };
  const doubt = guard.doubt();
  if (!doubt && part.lost) return { verdict: "none", reason: part.lost };
  if (doubt) return { verdict: "none", reason: t(`verdict.${doubt}`) };
  if (!open.length) return { verdict: "none", reason: t("part.no_roi") };
  const [{ roi, reason }] = open;
  return { verdict: "none", reason: open.length === 1 ? t("part.reason", { name: roi.name, reason }) : t("part.reasons", { n: open.length, name: roi.name, reason }) };
}

/** @param {RecipeGuard} guard @param {Picture} picture @returns {Promise<{placement: import("./anchor.js").Placement | null, lost: string | null}>} */
async function placementOf({ recipe, anchor }, picture) {
  if (!anchor) return { placement: null, lost: null };
  try {
    return { placement: await placementIn(picture, recipe, anchor), lost: null };
  } catch (problem) {
    return { placement: problem instanceof AnchorError ? problem.placement : null, lost: messageOf(problem) };
  }
}

/**
 * @param {RecipeGuard} guard
 * @param {Picture} picture
 * @param {LayoutRoi} roi
 * @returns {Promise<RoiVerdict>} with its crop, or with what is missing
 */
async function prepared(guard, picture, roi) {
  /** @type {RoiVerdict} */
  const ready = { roi, verdict: "none", reason: "", reply: null, crop: null, problem: null };
  try {
    if (!roi.roi) return { ...ready, problem: t("part.not_drawn") };
    const lack = await guard.lackOf(roi);
    if (lack) return { ...ready, problem: t(`verdict.${lack}`) };
    return { ...ready, crop: await cutDrawn(picture, { ...roi, recipe_id: guard.recipe, anchor: guard.anchor }) };
  } catch (problem) {
    return { ...ready, problem: messageOf(problem) };
  }
}

/**
 * @param {RecipeGuard} guard
 * @param {RoiVerdict} ready
 * @param {string} name of the picture
 * @param {boolean} isTest
 * @param {AbortSignal | undefined} signal
 * @returns {Promise<RoiVerdict>}
 */
async function judged(guard, ready, name, isTest, signal) {
  const { roi, crop } = ready;
  if (!crop || !roi.roi) return ready;
  if (guard.doubt() === "away") return { ...ready, problem: t("verdict.away") }; // each would wait for as long
  const shape = shapeOf(roi.roi, crop);
  const form = formOf(guard.keyOf(roi), { mm_per_px: guard.scaleOf(roi), heatmap: "threshold", why: true, trial: isTest, shape: shape && JSON.stringify(shape) });
  form.append("image", crop.blob, name);
  try {
    const reply = await call("infer", { form, signal, timeoutMs: PATIENCE_MS });
    await guard.heard(roi, reply);
    return { ...ready, reply };
  } catch (problem) {
    signal?.throwIfAborted();
    if (!(problem instanceof ApiError)) throw problem;
    return { ...ready, problem: problem.message };
  }
}
