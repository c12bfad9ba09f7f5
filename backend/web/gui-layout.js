// @ts-check
/**
 * Layouts of the existing desktop GUI, `*.layout.json`, as the console's layouts. Text in, plain values out.
 *
 * The file has four places for ROIs: the geometry is in `Inspection1` to `Inspection4`, names and switches in `InspectionRois`. The recipe
 * is the file's name. What the console does not understand it leaves as it is; `gui-layout-write.js` gives it back.
 */
import { FORMAT } from "./layout.js";
import { t } from "./texts.js";
import "./texts-later.js";

/** @typedef {import("./layout.js").LayoutRoi} LayoutRoi */
/** @typedef {import("./pixels/roi.js").Roi} Roi */
/** @typedef {Record<string, any>} Json */
/** @typedef {{slot: number, roi: LayoutRoi, fits: boolean}} Place fits: the console can give the GUI's own pixels of it */
/**
 * What is understood of a file.
 * @typedef {object} GuiLayout
 * @property {string} file its name
 * @property {string} recipe after the file's name; empty: the name is none for a recipe
 * @property {Place[]} places at most four
 * @property {string[]} notes what was not taken over, and why: sentences for people
 * @property {Json} original
 */

export const SLOTS = /** @type {const} */ ([1, 2, 3, 4]);
export const ROLE = "Inspection";
export const KINDS = /** @type {const} */ (["rect", "circle", "annulus"]);
/** The GUI's words for them, in the order of its numbers. */
export const SHAPES = ["Rectangle", "Circle", "Annulus"];
const MASTERS = /** @type {const} */ (["Master1Pattern", "Master1Search", "Master2Pattern", "Master2Search"]);
const KNOWN = ["InspectionRois", "Inspection", ...MASTERS, ...SLOTS.map((slot) => `Inspection${slot}`)];
const SLOT_OF_KEY = /inspection[\s_-]?([1-4])/i;
const NAMES = /^[^\u0000-\u001f\u007f]{1,60}$/;
const RESERVED = "last";

/** A file that is no layout of the GUI. Its message is a sentence. */
export class GuiLayoutError extends Error {}

/**
 * @param {string} text of a file
 * @param {string} name of it
 * @returns {Json}
 * @throws {GuiLayoutError}
 */
export function readObject(text, name) {
  let content;
  try {
    content = JSON.parse(text.replace(/^[\ufeff\s]+/, "").replaceAll("\0", "")); // as the GUI itself reads
  } catch (problem) {
    throw new GuiLayoutError(t("gui.no_json", { name, reason: problem instanceof Error ? problem.message : String(problem) }));
  }
  if (!isObject(content)) throw new GuiLayoutError(t("gui.no_object", { name }));
  return content;
}

/** @param {unknown} value @returns {value is Json} */
export function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Whether an object is a layout of the GUI. @param {Json} content */
export function isGuiLayout(content) {
  return KNOWN.some((name) => name in content);
}

/**
 * Millimetres per pixel, which the GUI keeps in `preset.json`.
 * @param {Json} content of the file
 * @returns {number | null} null: it says nothing that can be
 */
export function scaleIn(content) {
  const scale = content.MmPerPx;
  return typeof scale === "number" && scale > 0 && scale <= 1e6 ? scale : null;
}

/**
 * @param {Json} original
 * @param {string} file its name
 * @param {number} mm_per_px which a layout of the GUI does not say
 * @returns {GuiLayout}
 * @throws {GuiLayoutError} it is none
 */
export function readGuiLayout(original, file, mm_per_px) {
  if (original.format === FORMAT) throw new GuiLayoutError(t("gui.of_console", { name: file }));
  if (!isGuiLayout(original)) throw new GuiLayoutError(t("gui.no_layout", { name: file }));
  /** @type {GuiLayout} */
  const layout = { file, recipe: recipeOf(file), places: [], notes: [], original };
  const configs = configsOf(original);
  for (const slot of SLOTS) {
    const place = placeOf(original, slot, configs[slot] ?? {}, mm_per_px, layout.notes);
    if (!place) continue;
    const twin = layout.places.find(({ roi }) => roi.roi_id === place.roi.roi_id);
    if (twin) layout.notes.push(t("gui.twin", { name: place.roi.name, other: twin.roi.name, key: place.roi.roi_id }));
    else layout.places.push(place);
  }
  layout.notes.push(...wholeNotes(original, layout.places));
  return layout;
}

/** The recipe that the GUI names by a file. @param {string} file @returns {string} empty: it may not be one */
export function recipeOf(file) {
  const name = file.replace(/\.json$/i, "").replace(/\.layout$/i, "").trim();
  return NAMES.test(name) && name.toLowerCase() !== RESERVED ? name : "";
}

/** Name, switch and key of each place; the last of a place counts. @param {Json} original @returns {Partial<Record<number, Json>>} */
export function configsOf(original) {
  /** @type {Partial<Record<number, Json>>} */
  const configs = {};
  for (const config of Array.isArray(original.InspectionRois) ? original.InspectionRois : []) {
    const slot = isObject(config) ? slotOf(config) : null;
    if (slot) configs[slot] = config;
  }
  return configs;
}

/** @param {Json} config @returns {number | null} */
export function slotOf({ Index, Id, ModelKey }) {
  if (SLOTS.includes(Index)) return Index;
  for (const text of [Id, ModelKey]) {
    const slot = typeof text === "string" && SLOT_OF_KEY.exec(text);
    if (slot) return Number(slot[1]);
  }
  return null;
}

/** @param {Json} original @param {number} slot @returns {Json | null} older files have one geometry, without a number */
export function geometryOf(original, slot) {
  const found = original[`Inspection${slot}`];
  if (isObject(found)) return found;
  const isOld = slot === 1 && SLOTS.every((other) => !isObject(original[`Inspection${other}`]));
  return isOld && isObject(original.Inspection) ? original.Inspection : null;
}

/**
 * @param {Json} original @param {number} slot @param {Json} config @param {number} mm_per_px
 * @param {string[]} notes are added to
 * @returns {Place | null}
 */
function placeOf(original, slot, config, mm_per_px, notes) {
  const geometry = geometryOf(original, slot);
  const name = textOf(config.Name) ?? textOf(geometry?.Label) ?? `Inspection ${slot}`;
  if (!geometry) {
    if (config.Enabled === true) notes.push(t("gui.no_geometry", { name }));
    return null;
  }
  const read = roiOf(geometry, name, notes);
  if (!read) return null;
  const key = keyOf(config.ModelKey, slot);
  if (!SLOT_OF_KEY.test(key)) notes.push(t("gui.other_key", { name, key }));
  if (config.TrainMemoryFit === true) notes.push(t("gui.memory_fit", { name }));
  /** @type {LayoutRoi} */
  const roi = { role_id: ROLE, roi_id: key, model_key: key, name: name.slice(0, 60), mm_per_px, roi: read.roi, picture: pictureOf(geometry) ?? pictureOf(config) };
  if (!roi.picture) notes.push(t("gui.no_size", { name }));
  return { slot, roi: config.Enabled === false ? { ...roi, enabled: false } : roi, fits: read.fits };
}

/** @param {unknown} modelKey @param {number} slot */
function keyOf(modelKey, slot) {
  const key = textOf(modelKey) ?? `inspection-${slot}`;
  const found = SLOT_OF_KEY.exec(key);
  return found ? `inspection-${found[1]}` : key;
}

/**
 * @param {Json} geometry
 * @param {string} name
 * @param {string[]} notes are added to
 * @returns {{roi: Roi, fits: boolean} | null}
 */
function roiOf(geometry, name, notes) {
  const kind = kindOf(geometry.Shape);
  if (!kind) {
    notes.push(t("gui.unknown_shape", { name, shape: JSON.stringify(geometry.Shape) }));
    return null;
  }
  const isRect = kind === "rect";
  const cx = isRect ? firstOf(geometry.X, geometry.CX) : firstOf(geometry.CX, geometry.X);
  const cy = isRect ? firstOf(geometry.Y, geometry.CY) : firstOf(geometry.CY, geometry.Y);
  const [width, height] = [sizeOf(geometry.Width), sizeOf(geometry.Height)];
  const r = sizeOf(geometry.R) || Math.max(width, height) / 2;
  const r_inner = kind === "annulus" ? sizeOf(geometry.RInner) : 0;
  if (cx === null || cy === null || (isRect ? !(width && height) : !r)) {
    notes.push(t("gui.no_size_of_roi", { name }));
    return null;
  }
  if (kind === "annulus" && r_inner >= r) {
    notes.push(t("gui.no_ring", { name, r, r_inner }));
    return null;
  }
  const [w, h] = isRect ? [width, height] : [2 * r, 2 * r];
  const angle_deg = firstOf(geometry.angle_deg, geometry.AngleDeg) ?? 0;
  const fits = isRect || Math.max(width, height) < 2 * r + 0.01;
  if (!fits) notes.push(t("gui.wide_circle", { name, width, height, side: 2 * r }));
  return { roi: { kind, cx, cy, w, h, r: isRect ? Math.min(w, h) / 2 : r, r_inner, angle_deg }, fits };
}

/** @param {unknown} shape a number or a word; the GUI leaves nothing out, and takes a rectangle where it is missing @returns {Roi["kind"] | null} */
function kindOf(shape) {
  if (shape === undefined || shape === null) return "rect";
  if (typeof shape === "number") return KINDS[shape] ?? null;
  return KINDS[SHAPES.findIndex((word) => word.toLowerCase() === String(shape).toLowerCase())] ?? null;
}

/** @param {unknown} value */
function textOf(value) {
  return typeof value === "string" && value.trim() ? value.trim() : null;
}

/** @param {...unknown} values @returns {number | null} */
function firstOf(...values) {
  return values.find((value) => typeof value === "number" && Number.isFinite(value)) ?? /** @type {any} */ (null);
}

/** @param {unknown} value @returns {number} 0 where it is none */
function sizeOf(value) {
  return typeof value === "number" && value > 0 && Number.isFinite(value) ? value : 0;
}

/** @param {Json} holder */
function pictureOf({ BaseImgW, BaseImgH }) {
  const [width, height] = [Math.round(sizeOf(BaseImgW)), Math.round(sizeOf(BaseImgH))];
  return width && height ? { width, height } : null;
}

/** What the console has in another way, or not at all. @param {Json} original @param {Place[]} places */
function wholeNotes(original, places) {
  const notes = [];
  if (MASTERS.some((name) => isObject(original[name]))) notes.push(t("gui.masters"));
  const pictures = isObject(original.InspectionBaselinesByImage) ? Object.keys(original.InspectionBaselinesByImage).length : 0;
  if (pictures) notes.push(t("gui.baselines", { n: pictures }));
  if (places.length) notes.push(t("gui.thresholds"));
  return notes;
}
