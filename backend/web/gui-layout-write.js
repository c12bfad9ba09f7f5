// @ts-check
/**
 * The console's layout as one of the existing desktop GUI. Where it was opened from such a file, only what changed since is written
 * anew: all else of the file, also what the console does not understand, stays as it was.
 */
import { configsOf, geometryOf, isObject, KINDS, readGuiLayout, recipeOf, ROLE, SHAPES, SLOTS, slotOf } from "./gui-layout.js";
import { number, t } from "./texts.js";
import "./texts-later.js";

/** @typedef {import("./gui-layout.js").Json} Json */
/** @typedef {import("./gui-layout.js").Place} Place */
/** @typedef {import("./layout.js").Layout} Layout */
/** @typedef {import("./layout.js").LayoutRoi} LayoutRoi */
/** @typedef {import("./pixels/roi.js").Roi} Roi */
/** @typedef {{cx: number, cy: number, w: number, h: number, picture: {width: number, height: number} | null}} Pattern by which the GUI finds the part */
/**
 * @typedef {object} Written
 * @property {string} file its name
 * @property {Json} layout
 * @property {number} n ROIs that it holds
 * @property {boolean} found whether the GUI can find the part: else it switches every ROI off
 * @property {string[]} notes what it does not hold, and why
 */

const ROLES = { Master1Pattern: 0, Master1Search: 1, Inspection: 4 };
const NO_FILE_NAME = /[<>:"/\\|?*]/g;

/**
 * @param {Layout} content of the recipe
 * @param {string} recipe
 * @param {Pattern | null} pattern where the file has none of its own
 * @param {number} margin_px how far around the pattern the GUI shall search
 * @returns {Written}
 */
export function writeGuiLayout(content, recipe, pattern, margin_px) {
  const kept = content.gui_layout;
  const layout = isObject(kept?.layout) ? structuredClone(kept.layout) : {};
  const before = isObject(kept?.layout) ? readGuiLayout(layout, kept.file, 1).places : [];
  const isOfThis = kept !== undefined && recipeOf(kept.file).toLowerCase() === recipe.toLowerCase(); // the service keeps lower case
  const file = isOfThis ? kept.file : `${recipe.replace(NO_FILE_NAME, "_")}.layout.json`;
  /** @type {Written} */
  const written = { file, layout, n: 0, found: false, notes: [] };
  if (!isOfThis && !file.startsWith(recipe)) written.notes.push(t("gui.file_name", { recipe, file }));
  const bySlot = new Map(content.rois.map((roi) => [placeFor(roi, before), roi]));
  for (const roi of content.rois) if (bySlot.get(placeFor(roi, before)) !== roi || placeFor(roi, before) === null) written.notes.push(t("gui.no_place", { name: roi.name, key: roi.roi_id }));
  for (const slot of SLOTS) {
    const roi = bySlot.get(slot);
    const old = before.find((place) => place.slot === slot);
    if (roi?.roi) written.n++;
    if (roi && !roi.roi) written.notes.push(t("gui.not_drawn", { name: roi.name }));
    if (roi?.roi && !isSame(roi, old?.roi)) put(layout, slot, roi, written.notes);
    else if (old && !roi?.roi) takeOut(layout, slot, old.roi.name, written.notes);
  }
  written.found = putMasters(layout, pattern, margin_px);
  written.notes.push(...scaleNotes(content.rois));
  return written;
}

/** @param {LayoutRoi} roi @param {Place[]} before @returns {number | null} null: the GUI has none for it */
function placeFor({ role_id, roi_id, model_key }, before) {
  const old = before.find(({ roi }) => roi.role_id === role_id && roi.roi_id === roi_id && roi.model_key === model_key);
  if (old) return old.slot;
  const slot = role_id === ROLE && roi_id === model_key ? SLOTS.find((one) => roi_id === `inspection-${one}`) : undefined;
  return slot && !before.some((place) => place.slot === slot) ? slot : null;
}

/** Whether it is as it was in the file. @param {LayoutRoi} roi @param {LayoutRoi | undefined} old */
function isSame(roi, old) {
  return old !== undefined && JSON.stringify(told(roi)) === JSON.stringify(told(old));
}

/** What the file tells of a ROI. @param {LayoutRoi} roi */
function told({ name, roi, picture, enabled }) {
  const { kind, cx, cy, w, h, r, r_inner, angle_deg } = /** @type {Roi} */ (roi);
  const sizes = kind === "rect" ? [w, h] : kind === "circle" ? [r] : [r, r_inner];
  return [name, kind, cx, cy, ...sizes, angle_deg, picture?.width, picture?.height, enabled !== false];
}

/** @param {Json} layout @param {number} slot @param {LayoutRoi} drawn @param {string[]} notes are added to */
function put(layout, slot, drawn, notes) {
  const roi = /** @type {Roi} */ (drawn.roi);
  const id = `Inspection_${slot}`;
  const { angle_deg: _, ...old } = geometryOf(layout, slot) ?? {}; // the GUI would take it before AngleDeg
  const isRect = roi.kind === "rect";
  const size = drawn.picture ? { BaseImgW: drawn.picture.width, BaseImgH: drawn.picture.height } : {};
  const shape = (/** @type {unknown} */ now) => (typeof now === "string" ? SHAPES[KINDS.indexOf(roi.kind)] : KINDS.indexOf(roi.kind));
  layout[`Inspection${slot}`] = {
    Id: id, Label: drawn.name, Role: ROLES.Inspection, ...old, Shape: shape(old.Shape),
    X: roi.cx, Y: roi.cy, CX: roi.cx, CY: roi.cy, AngleDeg: roi.angle_deg,
    Width: isRect ? roi.w : 2 * roi.r, Height: isRect ? roi.h : 2 * roi.r,
    R: isRect ? 0 : roi.r, RInner: roi.kind === "annulus" ? roi.r_inner : 0, ...size,
  };
  const config = configsOf(layout)[slot] ?? { Index: slot, Id: id, ModelKey: drawn.model_key, AnchorMaster: 1 };
  setConfig(layout, slot, { ...config, Name: drawn.name, Enabled: drawn.enabled !== false, Shape: shape(config.Shape), ...size });
  if (forget(layout, slot)) notes.push(t("gui.baselines_gone", { name: drawn.name }));
}

/** @param {Json} layout @param {number} slot @param {string} name @param {string[]} notes are added to */
function takeOut(layout, slot, name, notes) {
  delete layout[`Inspection${slot}`];
  if (slot === 1) delete layout.Inspection;
  const config = configsOf(layout)[slot];
  if (config) setConfig(layout, slot, { ...config, Enabled: false });
  forget(layout, slot);
  notes.push(t("gui.taken_out", { name }));
}

/** @param {Json} layout @param {number} slot @param {Json} config */
function setConfig(layout, slot, config) {
  const before = configsOf(layout)[slot];
  const configs = Array.isArray(layout.InspectionRois) ? layout.InspectionRois : [];
  layout.InspectionRois = before ? configs.map((one) => (one === before ? config : one)) : [...configs, config];
}

/**
 * Forget where a ROI lay in single pictures: the GUI would go on with it.
 * @param {Json} layout
 * @param {number} slot
 * @returns {boolean} whether there was anything
 */
function forget(layout, slot) {
  const pictures = layout.InspectionBaselinesByImage;
  if (!isObject(pictures)) return false;
  let n = 0;
  for (const [picture, places] of Object.entries(pictures)) {
    if (!Array.isArray(places)) continue;
    const others = places.filter((place) => !isObject(place) || slotOf({ Id: place.Id }) !== slot);
    n += places.length - others.length;
    pictures[picture] = others;
  }
  return n > 0;
}

/** @param {Json} layout @param {Pattern | null} pattern @param {number} margin_px @returns {boolean} whether it has what the GUI needs */
function putMasters(layout, pattern, margin_px) {
  const isThere = () => isObject(layout.Master1Pattern) && isObject(layout.Master1Search);
  if (isThere() || !pattern) return isThere();
  const { cx, cy, w, h, picture } = pattern;
  const size = picture ? { BaseImgW: picture.width, BaseImgH: picture.height } : {};
  const [left, right] = [Math.max(0, cx - w / 2 - margin_px), Math.min(picture?.width ?? Infinity, cx + w / 2 + margin_px)];
  const [top, bottom] = [Math.max(0, cy - h / 2 - margin_px), Math.min(picture?.height ?? Infinity, cy + h / 2 + margin_px)];
  const rect = (/** @type {keyof typeof ROLES} */ name, /** @type {number[]} */ [x, y, width, height]) => ({
    Id: name, Label: name, Shape: 0, Role: ROLES[name], AngleDeg: 0, X: x, Y: y, Width: width, Height: height, CX: x, CY: y, R: 0, RInner: 0, ...size,
  });
  layout.Master1Pattern ??= rect("Master1Pattern", [cx, cy, w, h]);
  layout.Master1Search ??= rect("Master1Search", [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]);
  return true;
}

/** @param {Layout} content @returns {boolean} whether the file that was opened has what the GUI finds the part by */
export function hasMasters({ gui_layout }) {
  return isObject(gui_layout?.layout.Master1Pattern) && isObject(gui_layout.layout.Master1Search);
}

/** @param {LayoutRoi[]} rois */
function scaleNotes(rois) {
  const scale = rois.find(({ mm_per_px }) => mm_per_px !== 1)?.mm_per_px;
  const cutHere = rois.filter(({ roi }) => roi && roi.crop !== "gui");
  return [
    ...(scale === undefined ? [] : [t("gui.scale_elsewhere", { scale: number(scale) })]),
    ...(cutHere.length ? [t("gui.cut_here", { n: cutHere.length, names: cutHere.map(({ name }) => name).join(", ") })] : []),
  ];
}
