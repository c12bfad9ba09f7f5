// @ts-check
/**
 * The anchor of a recipe: a place of the picture that every part has. Where it is found, the ROIs follow by shift and turn; where it
 * is not found with confidence, nothing is judged.
 */
import { fetchBlob, newId, send } from "./api.js";
import { LayoutConflict, writeLayout } from "./layout.js";
import { cutRoi, firmnessOf, locateIn, openPicture } from "./pixels/picture.js";
import { turnOf } from "./pixels/roi.js";
import { fixed, t } from "./texts.js";

/** @typedef {import("./pixels/roi.js").Roi} Roi */
/** @typedef {import("./pixels/picture.js").Picture} Picture */
/**
 * @typedef {object} Anchor
 * @property {string} id new with every template; the template is the layout's picture `anchor-ID`
 * @property {number} cx centre of the template in the reference picture, in pixels
 * @property {number} cy
 * @property {number} w size of the template in whole pixels
 * @property {number} h
 * @property {number} search_px how far a part may move
 * @property {number} search_deg how far it may turn, either way
 * @property {number} least_score below which it counts as not found
 * @property {{width: number, height: number}} picture size of the reference picture
 */
/**
 * Where the part of a picture is: a point P of the reference picture is at centre + (dx, dy) + rotation · (P - centre).
 * @typedef {{dx: number, dy: number, angle_deg: number, score: number, second: number}} Placement second: score of the next best place
 */
/** @typedef {import("./pixels/anchor.js").Firmness & {second: number}} Firmness second: score of the next best place in the reference picture */

export const DEFAULTS = { search_px: 64, search_deg: 10, least_score: 0.8 };
/** A place that is nearly as good as the best one leaves it open where the part is. */
const MOST_SECOND = 0.9;
/** In grey values of 255: of cameras in factories, and least of a template. */
const NOISE = 4;
const LEAST_CONTRAST = 4;
const MOST_ERROR_PX = 0.25;
/** Of a template with itself turned by 10°: discs have 0.997, an octagon 0.97. */
const MOST_TURNED = 0.985;
const LEAST_SIDE = 12;
/** Placements are told in steps that binary numbers hold exactly, so that every computation of them cuts the same pixels. */
const STEPS_PX = 64;
const STEPS_DEG = 128;

/** The anchor was not found, or not with confidence. */
export class AnchorError extends Error {
  /** @param {string} message @param {Placement | null} placement the best one, for all that */
  constructor(message, placement) {
    super(message);
    this.name = "AnchorError";
    this.placement = placement;
  }
}

/** @type {Map<string, Promise<Picture>>} */
const templates = new Map();
/** @type {WeakMap<Picture, Map<string, Promise<Placement>>>} */
const placements = new WeakMap();

/** @param {string} recipe @param {Anchor} anchor @returns {Promise<Picture>} */
function templateOf(recipe, { id }) {
  const found = templates.get(id) ?? fetchBlob("layout/picture", { query: { recipe_id: recipe, name: `anchor-${id}` } }).then((blob) => openPicture(blob, { name: "anchor" }));
  templates.set(id, found);
  found.catch(() => templates.delete(id)); // asked for again
  return found;
}

/**
 * The best place of the anchor in a picture, with confidence or without.
 * @param {Picture} picture
 * @param {string} recipe
 * @param {Anchor} anchor
 * @returns {Promise<Placement>}
 */
export function bestPlacement(picture, recipe, anchor) {
  const known = placements.get(picture) ?? new Map();
  placements.set(picture, known);
  const text = JSON.stringify([anchor.id, anchor.search_px, anchor.search_deg]);
  const found = known.get(text) ?? search(picture, recipe, anchor);
  known.set(text, found);
  found.catch(() => known.delete(text));
  return found;
}

/** @param {Picture} picture @param {string} recipe @param {Anchor} anchor @returns {Promise<Placement>} */
async function search(picture, recipe, anchor) {
  const { width, height } = anchor.picture;
  if (picture.width !== width || picture.height !== height)
    throw new AnchorError(t("anchor.other_size", { name: picture.name, width: picture.width, height: picture.height, usual_width: width, usual_height: height }), null);
  const found = await locateIn(picture, await templateOf(recipe, anchor), anchor);
  const rounded = (/** @type {number} */ value, /** @type {number} */ steps) => Math.floor(value * steps + 0.5) / steps;
  return { ...found, dx: rounded(found.dx, STEPS_PX), dy: rounded(found.dy, STEPS_PX), angle_deg: rounded(found.angle_deg, STEPS_DEG) };
}

/**
 * Where the part of a picture is.
 * @param {Picture} picture
 * @param {string} recipe
 * @param {Anchor} anchor
 * @returns {Promise<Placement>}
 * @throws {AnchorError}
 */
export async function placementIn(picture, recipe, anchor) {
  const found = await bestPlacement(picture, recipe, anchor);
  const reason = doubtOf(found, anchor);
  if (reason) throw new AnchorError(reason, found);
  return found;
}

/** @param {Placement} placement @param {Pick<Anchor, "least_score">} anchor @returns {string | null} why it must not be believed */
export function doubtOf({ score, second }, { least_score }) {
  if (score < least_score) return t("anchor.not_found", { score: fixed(score, 2), least: least_score });
  return second >= MOST_SECOND * score ? t("anchor.twice", { score: fixed(score, 2), second: fixed(second, 2) }) : null;
}

/**
 * A ROI where the part is.
 * @param {Roi} roi as it was drawn, in the reference picture
 * @param {Anchor} anchor
 * @param {Placement} placement
 * @returns {Roi}
 */
export function placed(roi, anchor, { dx, dy, angle_deg }) {
  const { cos, sin } = turnOf(angle_deg);
  const [x, y] = [roi.cx - anchor.cx, roi.cy - anchor.cy];
  return { ...roi, cx: anchor.cx + dx + (x * cos - y * sin), cy: anchor.cy + dy + (x * sin + y * cos), angle_deg: roi.angle_deg + angle_deg };
}

/** @typedef {{anchor: Anchor, placement: Placement} | null} Before by which the reference picture is found: its part may have moved */

/**
 * Where a picture of the anchor alone lies in the reference picture, as far as it is not turned there.
 * @param {Picture} picture reference picture
 * @param {Picture} file
 * @param {number} least_score
 * @param {Before} before
 * @returns {Promise<{rectangle: Roi, score: number}>} the frame, with its edges between pixels
 * @throws {AnchorError}
 */
export async function frameOf(picture, file, least_score, before) {
  const { name, width: w, height: h } = file;
  const { width, height } = picture;
  if (Math.min(w, h) < LEAST_SIDE || w >= width || h >= height) throw new AnchorError(t("anchor.file_size", { name, w, h, least: LEAST_SIDE, width, height }), null);
  const found = await locateIn(picture, file, { cx: width / 2, cy: height / 2, w, h, search_px: Math.max(width - w, height - h) / 2, search_deg: 0 });
  const reason = doubtOf(found, { least_score });
  if (reason) throw new AnchorError(reason, found);
  let [x, y] = [width / 2 + found.dx, height / 2 + found.dy];
  if (before) {
    const { cx, cy } = before.anchor;
    const { dx, dy, angle_deg } = before.placement;
    const { cos, sin } = turnOf(-angle_deg);
    const [u, v] = [x - cx - dx, y - cy - dy];
    [x, y] = [cx + (u * cos - v * sin), cy + (u * sin + v * cos)];
  }
  return { rectangle: rectOf({ cx: Math.round(x - w / 2) + w / 2, cy: Math.round(y - h / 2) + h / 2, w, h }), score: found.score };
}

/**
 * What a template is worth: nothing is stored.
 * @param {Picture} picture reference picture
 * @param {Omit<Anchor, "id">} anchor
 * @param {Before} [before]
 * @param {Picture | null} [file] the template; null: it is cut out
 * @returns {Promise<{template: Picture, firmness: Firmness, problem: string | null}>} problem: why it would find no place for certain
 */
export async function tryAnchor(picture, anchor, before, file) {
  const rectangle = rectOf(anchor);
  const cut = async () => openPicture((await cutRoi(picture, before ? placed(rectangle, before.anchor, before.placement) : rectangle)).blob, { name: "anchor" });
  const template = file ?? (await cut());
  const [firm, { second }] = await Promise.all([firmnessOf(template, anchor, NOISE), locateIn(picture, template, anchor)]);
  const firmness = { ...firm, second };
  return { template, firmness, problem: problemOf(firmness, anchor) };
}

/** @param {Firmness} firmness @param {Omit<Anchor, "id">} anchor @returns {string | null} */
function problemOf({ contrast, error_px, turned, second }, { search_deg }) {
  if (contrast < LEAST_CONTRAST) return t("anchor.flat", { contrast: fixed(contrast, 1), least: LEAST_CONTRAST });
  if (error_px > MOST_ERROR_PX) return t("anchor.slides", { error: error_px < 10 ? fixed(error_px, 2) : "> 10", most: MOST_ERROR_PX, noise: NOISE });
  if (turned > MOST_TURNED && search_deg > 0) return t("anchor.turns", { score: fixed(turned, 3), most: MOST_TURNED });
  return second >= MOST_SECOND ? t("anchor.ambiguous", { second: fixed(second, 2), most: MOST_SECOND }) : null;
}

/** @param {{cx: number, cy: number, w: number, h: number}} anchor @returns {Roi} */
export function rectOf({ cx, cy, w, h }) {
  return { kind: "rect", cx, cy, w, h, r: Math.min(w, h) / 2, r_inner: 0, angle_deg: 0 };
}

/**
 * Store an anchor with its template.
 * @param {string} recipe
 * @param {Omit<Anchor, "id">} anchor
 * @param {Picture} template
 * @param {Anchor | null} base what it was before
 * @returns {Promise<Anchor>}
 * @throws {LayoutConflict}
 */
export async function saveAnchor(recipe, anchor, template, base) {
  const mine = { id: newId(), ...anchor };
  await send("layout/picture", { method: "PUT", query: { recipe_id: recipe, name: `anchor-${mine.id}` }, blob: template.blob });
  await changeAnchor(recipe, mine, base);
  if (base) await deleteTemplate(recipe, base);
  return mine;
}

/** @param {string} recipe @param {Anchor} base what it was before */
export async function removeAnchor(recipe, base) {
  await changeAnchor(recipe, null, base);
  await deleteTemplate(recipe, base);
}

/**
 * Change what needs no new template.
 * @param {string} recipe
 * @param {Anchor | null} anchor
 * @param {Anchor | null} base what it was before
 * @throws {LayoutConflict}
 */
export async function changeAnchor(recipe, anchor, base) {
  await writeLayout(recipe, (content) => {
    if (JSON.stringify(content.anchor ?? null) !== JSON.stringify(base)) throw new LayoutConflict(null);
    const { anchor: _, ...others } = content;
    return anchor ? { ...others, anchor } : others;
  });
}

/** @param {string} recipe @param {Anchor} anchor */
async function deleteTemplate(recipe, { id }) {
  await send("layout/picture", { method: "DELETE", query: { recipe_id: recipe, name: `anchor-${id}` } });
}
