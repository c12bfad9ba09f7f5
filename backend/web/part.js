// @ts-check
/**
 * The verdict about a whole part: every ROI of the recipe is cut out of one picture and judged.
 *
 *     const guard = new RecipeGuard(recipe, () => show(partVerdict(part, guard)));
 *     guard.start();
 *     const part = await judgePart(guard, await openPicture(file), { id: newId(), signal, isTest: true });
 *
 * A part is NG if any ROI is NG, and OK only if all of them answered OK. A verdict holds for as long as `partVerdict` says so: ask
 * it again whenever the guard calls.
 */
import { AnchorError, placed, placementIn, rectOf } from "./anchor.js";
import { ApiError } from "./api.js";
import { keepJudged } from "./judged.js";
import { isSame } from "./layout.js";
import { cutDrawn } from "./pictures.js";
import { judge, sentOf } from "./question.js";
import { roiText } from "./router.js";
import { messageOf, t } from "./texts.js";
import "./texts-later.js";
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
 * @property {import("./pixels/roi.js").Roi | null} place where it lies in this picture
 * @property {string | null} problem why it could not be judged, whatever is served
 * @property {boolean} again there was no answer, or something is missing for one: it may be judged later
 * @property {number} wait_s for which the service asked to wait
 */
/**
 * @typedef {object} Part
 * @property {Word} verdict
 * @property {string} reason why it was not judged
 * @property {import("./anchor.js").Placement | null} placement where the part is, also where that is in doubt; null: there is no anchor
 * @property {import("./pixels/roi.js").Roi | null} frame the anchor there
 * @property {string | null} lost why nobody knows where the part is
 * @property {string | null} etag of the layout by which it was cut
 * @property {RoiVerdict[]} rois in the order of the layout
 * @property {boolean} again it has no verdict, and may get one later
 * @property {number} wait_s for which the service asked to wait
 */

/** Refusals that say something of the picture; what others mean may be put right. */
const OF_THE_PICTURE = [400, 413, 415, 422];

/**
 * Judge every ROI of the recipe in one picture. While the service judges one ROI, the next is cut.
 * @param {RecipeGuard} guard started
 * @param {Picture} picture
 * @param {object} how
 * @param {string} how.id of the part, the same whenever it is judged: so the service counts it once
 * @param {AbortSignal} [how.signal]
 * @param {boolean} how.isTest the statistics of Health do not count it
 * @param {number} [how.tries] how often a busy service is asked, at most; see `Call`
 * @param {Part | null} [how.before] what was answered about this picture before: what still holds is not asked again
 * @returns {Promise<Part>}
 * @throws the signal's reason
 */
export async function judgePart(guard, picture, { id, signal, isTest, tries, before = null }) {
  await guard.learnt(signal);
  const { rois, etag, anchor } = guard;
  /** @type {Part} */
  const part = { verdict: "none", reason: "", etag, rois: [], wait_s: 0, frame: null, ...(await placementOf(guard, picture)) };
  part.frame = anchor && part.placement && placed(rectOf(anchor), anchor, part.placement);
  if (part.lost) return { ...part, ...partVerdict(part, guard) };
  const known = (/** @type {LayoutRoi} */ roi) => (before?.etag === etag ? before.rois.find((one) => one.reply && isSame(one.roi, roi) && guard.confirms(roi, one.reply)) : undefined);
  const ready = (/** @type {LayoutRoi} */ roi) => known(roi) ?? prepared(guard, picture, roi);
  let next = rois.length ? ready(rois[0]) : null;
  for (let at = 0; next; at++) {
    const found = await next;
    signal?.throwIfAborted();
    next = at + 1 < rois.length ? ready(rois[at + 1]) : null;
    const roi = found.reply || part.wait_s ? { ...found, again: !found.reply } : await judged(guard, found, picture.name, { id, isTest, signal, tries });
    roi.place = roi.roi.roi && anchor && part.placement ? placed(roi.roi.roi, anchor, part.placement) : roi.roi.roi;
    part.rois.push(roi);
    part.wait_s = Math.max(part.wait_s, roi.wait_s);
  }
  Object.assign(part, partVerdict(part, guard));
  part.again = part.verdict === "none" && (part.rois.length === 0 || part.rois.some(({ again, problem, verdict }) => again || (verdict === "none" && problem === null)));
  return part;
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

/** @param {RecipeGuard} guard @param {Picture} picture @returns {Promise<{placement: import("./anchor.js").Placement | null, lost: string | null, again: boolean}>} */
async function placementOf({ recipe, anchor }, picture) {
  if (!anchor) return { placement: null, lost: null, again: false };
  try {
    return { placement: await placementIn(picture, recipe, anchor), lost: null, again: false };
  } catch (problem) {
    return { placement: problem instanceof AnchorError ? problem.placement : null, lost: messageOf(problem), again: problem instanceof ApiError };
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
  const ready = { roi, verdict: "none", reason: "", reply: null, crop: null, place: null, problem: null, again: false, wait_s: 0 };
  try {
    if (!roi.roi) return { ...ready, problem: t("part.not_drawn"), again: true };
    const lack = await guard.lackOf(roi);
    if (lack) return { ...ready, problem: t(`verdict.${lack}`), again: true };
    return { ...ready, crop: await cropOf(guard, picture, roi) };
  } catch (problem) {
    return { ...ready, problem: messageOf(problem), again: problem instanceof ApiError };
  }
}

/** @type {WeakMap<Picture, Map<string, Promise<Crop>>>} by what was drawn */
const crops = new WeakMap();

/**
 * The crop of a ROI, which is cut once.
 * @param {RecipeGuard} guard
 * @param {Picture} picture
 * @param {LayoutRoi} roi
 * @returns {Promise<Crop>}
 */
function cropOf(guard, picture, roi) {
  const known = crops.get(picture) ?? new Map();
  crops.set(picture, known);
  const drawn = { ...roi, recipe_id: guard.recipe, anchor: guard.anchor };
  const text = JSON.stringify(drawn);
  const found = known.get(text) ?? cutDrawn(picture, drawn);
  known.set(text, found);
  found.catch(() => known.delete(text)); // it may be that the service did not give the anchor
  return found;
}

/**
 * Cut the first ROI before it is asked for, while the service judges another picture: the others are cut while it judges the first.
 * What is wrong with it, `judgePart` says.
 * @param {RecipeGuard} guard
 * @param {Picture} picture
 */
export async function cutAhead(guard, picture) {
  const [first] = guard.rois;
  if (first?.roi) await cropOf(guard, picture, first).catch(() => undefined);
}

/**
 * @param {RecipeGuard} guard
 * @param {RoiVerdict} ready
 * @param {string} name of the picture
 * @param {{id: string, isTest: boolean, signal?: AbortSignal, tries?: number}} how
 * @returns {Promise<RoiVerdict>}
 */
async function judged(guard, ready, name, { id, isTest, signal, tries }) {
  const { roi } = ready;
  if (!ready.crop) return ready;
  if (guard.doubt() === "away") return { ...ready, problem: t("verdict.away"), again: true }; // each would wait for as long
  const [key, sent] = [guard.keyOf(roi), sentAbout(guard, ready, name)];
  try {
    const reply = await judge(key, sent, { trial: isTest, part_id: id }, { headers: { "X-Request-Id": id }, signal, tries });
    await guard.heard(roi, reply);
    if (!isTest) void keepJudged(key, { id: `${id} ${roiText(key)}`, ...sent }, reply);
    return { ...ready, reply };
  } catch (problem) {
    signal?.throwIfAborted();
    if (!(problem instanceof ApiError)) throw problem;
    const again = !OF_THE_PICTURE.includes(problem.status);
    return { ...ready, problem: problem.message, again, wait_s: problem.wait_s };
  }
}

/**
 * What is sent of a ROI of a picture.
 * @param {RecipeGuard} guard
 * @param {RoiVerdict} ready with a crop
 * @param {string} name of the picture
 */
export function sentAbout(guard, { roi, crop }, name) {
  if (!roi.roi || !crop) throw new Error("there is nothing to ask about");
  return sentOf(roi.roi, crop, name, guard.scaleOf(roi));
}
