// @ts-check
/**
 * What is served of a whole recipe, and where its ROIs lie now: one question for all of them, however many there are.
 *
 *     const guard = new RecipeGuard(recipe, () => …);  // called when what may be believed has changed
 *     guard.start();
 *     await guard.learnt(signal);
 *     guard.close();
 */
import { call, idsOf, pause } from "./api.js";
import { fittedOn, isOf, lackOf, Watch } from "./guard.js";
import { readLayout } from "./layout.js";
import { cutText } from "./pictures.js";
import { roiText } from "./router.js";

/** @typedef {import("./api.js").RoiKey} RoiKey */
/** @typedef {import("./guard.js").Served} Served */
/** @typedef {import("./layout.js").LayoutRoi} LayoutRoi */
/** @typedef {"unfitted" | "stale" | "no_threshold" | "moved"} Lack */
/** @typedef {Served & {mm_per_px: number | null}} ServedRoi */

const LOOK_AGAIN_MS = 50;

export class RecipeGuard extends Watch {
  /** @param {string} recipe @param {() => void} onChange */
  constructor(recipe, onChange) {
    super(onChange);
    this.recipe = recipe;
    /** @type {import("./layout.js").Layout} */
    this.layout = { format: "", version: 0, rois: [] };
    /** @type {string | null} of the layout; null: there is none */
    this.etag = null;
    /** @type {Record<string, ServedRoi>} by `roiText` */
    this.served = {};
    /** ROIs of which regions decide, too, so that their thresholds must be watched. @type {Map<string, RoiKey>} */
    this.byRegions = new Map();
    /** Whether a model was fitted on a place: an answer counts for this model and this place. @type {Map<string, Promise<"same" | "other" | "unknown">>} */
    this.places = new Map();
  }

  /** The ROIs that are judged. @returns {LayoutRoi[]} */
  get rois() {
    return this.layout.rois.filter((roi) => roi.enabled !== false);
  }

  /** By which the ROIs follow a moved part. */
  get anchor() {
    return this.layout.anchor ?? null;
  }

  /** @param {LayoutRoi} roi @returns {RoiKey} */
  keyOf({ role_id, roi_id, model_key }) {
    return { recipe_id: this.recipe, role_id, roi_id, model_key };
  }

  /** @param {import("./api.js").Call} options */
  async learn(options) {
    const [{ rois }, layout, pixels] = await Promise.all([
      call("rois", { ...options, query: { recipe_id: this.recipe, limit: 1000 } }),
      readLayout(this.recipe, { ...options, etag: this.etag }),
      this.pixelThresholds(options),
    ]);
    this.served = Object.fromEntries(rois.map((/** @type {any} */ roi) => [roiText(roi), { ...servedOf(roi), pixel_threshold: pixels.get(roiText(roi)) }]));
    if (layout) [this.layout, this.etag] = [layout.content, layout.etag];
  }

  /** @param {import("./api.js").Call} options @returns {Promise<Map<string, number | undefined>>} */
  async pixelThresholds(options) {
    const found = new Map();
    for (const [text, key] of this.byRegions) found.set(text, (await call("manifest", { ...options, query: idsOf(key) })).calib?.pixel_threshold);
    return found;
  }

  facts() {
    return [this.served, this.etag];
  }

  /** Wait until it is known what is served, or that the service does not answer. @param {AbortSignal} [signal] */
  async learnt(signal) {
    while (this.known_at === -Infinity && this.doubt() !== "away") await pause(LOOK_AGAIN_MS, signal);
  }

  /**
   * What is missing for any verdict about a ROI.
   * @param {LayoutRoi} roi
   * @returns {Promise<Lack | null>}
   */
  async lackOf(roi) {
    const text = roiText(this.keyOf(roi));
    const served = this.served[text];
    if (!served) return "unfitted";
    const lack = lackOf(served);
    if (lack || !roi.roi) return lack;
    const { anchor } = this;
    const about = JSON.stringify([text, served.memory_id, cutText(roi.roi, anchor)]);
    const place = this.places.get(about) ?? fittedOn(this.keyOf(roi), roi.roi, anchor);
    this.places.set(about, place);
    place.catch(() => this.places.delete(about)); // asked again for the next part
    return (await place) === "other" ? "moved" : null;
  }

  /** @param {LayoutRoi} roi @returns {number} millimetres per pixel; 1 where nobody measured */
  scaleOf(roi) {
    return this.served[roiText(this.keyOf(roi))]?.mm_per_px ?? roi.mm_per_px;
  }

  /**
   * Whether a reply is of what is served now.
   * @param {LayoutRoi} roi
   * @param {any} reply of `/infer`
   */
  confirms(roi, reply) {
    const text = roiText(this.keyOf(roi));
    return isOf(this.served[text] ?? null, reply, this.byRegions.has(text));
  }

  /**
   * Take note of a reply: what it rests on is watched from now on.
   * @param {LayoutRoi} roi
   * @param {any} reply of `/infer`
   */
  async heard(roi, reply) {
    const key = this.keyOf(roi);
    const isNew = reply.decide_by !== undefined && !this.byRegions.has(roiText(key));
    if (isNew) this.byRegions.set(roiText(key), key);
    if (isNew || !this.confirms(roi, reply)) await this.askFacts();
  }
}

/** A recipe without a model of its own is served the default recipe's, which knows another product. @param {any} roi of `/rois` @returns {ServedRoi} */
function servedOf(roi) {
  const isOwn = roi.model?.recipe_id === roi.recipe_id;
  return {
    fitted: roi.fitted && isOwn,
    memory_id: roi.model?.memory_id ?? null,
    calibration: roi.calibration ?? "none",
    threshold: roi.threshold ?? null,
    mm_per_px: roi.mm_per_px ?? null,
  };
}
