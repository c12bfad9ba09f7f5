// @ts-check
/**
 * Whether a verdict may still be believed: the service answers, and it is the same model with the same threshold.
 *
 * A verdict outlives the last sign of life by less than two seconds. The time of a sign is when it was asked for, not when the
 * answer came, so that a slow answer makes nothing look fresher than it is.
 */
import { ApiError, call, idsOf, pause } from "./api.js";
import { cutText } from "./pictures.js";
import { roiText } from "./router.js";

/** @typedef {import("./api.js").RoiKey} RoiKey */
/** @typedef {{fitted: boolean, memory_id: string | null, calibration: string, threshold: number | null, pixel_threshold?: number}} Served */

const LIFE_EVERY_MS = 600;
const LIFE_PATIENCE_MS = 900;
const LIFE_LASTS_MS = 1800;
const FACTS_EVERY_MS = 1500;
const FACTS_LAST_MS = 8000;
const LOOK_EVERY_MS = 150;
const ASKED = 4;
/** How the service names what it stores; other names are of files that a client sent for a fit. */
const STORED_NAME = /^\d{8}-\d{6}-\d{6}-[0-9a-f]{8}\./;

/** What a guard of one ROI and a guard of a recipe share: signs of life, and facts that grow old. */
export class Watch {
  /** @param {() => void} onChange */
  constructor(onChange) {
    this.onChange = onChange;
    this.alive_at = -Infinity;
    this.known_at = -Infinity;
    /** @type {string | null} */
    this.status = null;
    this.abort = new AbortController();
    this.said = "";
  }

  start() {
    void this.repeat(LIFE_EVERY_MS, () => this.askLife());
    void this.repeat(FACTS_EVERY_MS, () => this.askFacts());
    this.timer = setInterval(() => this.look(), LOOK_EVERY_MS);
    document.addEventListener("visibilitychange", this.seen);
  }

  /** Timers of a hidden tab are slowed: what is known is old when it is seen again. */
  seen = () => this.look();

  /** @param {number} every_ms @param {() => Promise<void>} work */
  async repeat(every_ms, work) {
    while (!this.abort.signal.aborted) {
      const begun = performance.now();
      await work();
      this.look();
      try {
        await pause(Math.max(50, every_ms - (performance.now() - begun)), this.abort.signal);
      } catch {
        return; // closed
      }
    }
  }

  async askLife() {
    const asked_at = performance.now();
    try {
      const health = await call("health", { quiet: true, timeoutMs: LIFE_PATIENCE_MS, signal: this.abort.signal });
      this.status = health.status;
      if (health.status === "ok") this.alive_at = asked_at;
    } catch {
      this.status = null; // no answer, for whatever reason
    }
  }

  /** Look at once: what is served was changed from here. */
  ask() {
    void this.askFacts().then(() => this.look());
  }

  async askFacts() {
    const asked_at = performance.now();
    try {
      await this.learn({ quiet: true, timeoutMs: FACTS_EVERY_MS * 2, signal: this.abort.signal });
      this.known_at = asked_at;
    } catch (problem) {
      if (problem instanceof ApiError && (problem.status === 401 || problem.status === 403)) this.known_at = -Infinity;
    }
  }

  /**
   * Ask the service what is served.
   * @param {import("./api.js").Call} _options of the requests
   * @returns {Promise<void>}
   */
  async learn(_options) {
    throw new Error("a guard says what it asks for");
  }

  /** @returns {unknown} what was learnt */
  facts() {
    throw new Error("a guard says what it learnt");
  }

  /** Tell when what is to be believed has changed. */
  look() {
    const said = JSON.stringify([this.doubt(), this.facts()]);
    if (said === this.said || this.abort.signal.aborted) return;
    this.said = said;
    this.onChange();
  }

  /** @returns {"away" | "starting" | "unknown" | null} why nothing may be believed now */
  doubt() {
    const now = performance.now();
    if (now - this.alive_at > LIFE_LASTS_MS || this.status === null) return "away";
    if (this.status !== "ok") return "starting";
    return now - this.known_at > FACTS_LAST_MS ? "unknown" : null;
  }

  close() {
    this.abort.abort();
    clearInterval(this.timer);
    document.removeEventListener("visibilitychange", this.seen);
  }
}

export class Guard extends Watch {
  /**
   * @param {RoiKey} key
   * @param {() => void} onChange
   */
  constructor(key, onChange) {
    super(onChange);
    this.key = key;
    /** @type {Served | null} */
    this.served = null;
    /** Whether regions decide, too, so that their threshold must be watched. */
    this.pixels = false;
  }

  /** @param {import("./api.js").Call} options */
  async learn(options) {
    const { rois } = await call("rois", { ...options, query: { recipe_id: this.key.recipe_id, limit: 1000 } });
    const own = rois.find((/** @type {RoiKey} */ roi) => roiText(roi) === roiText(this.key));
    const query = idsOf(this.key);
    const found = own ?? (await call("state", { ...options, query }));
    const calib = own && !this.pixels ? null : (await call("manifest", { ...options, query })).calib; // a borrowed model is not in the list
    this.served = {
      fitted: (own ? found.fitted : found.memory_fitted) ?? false,
      memory_id: found.model?.memory_id ?? null,
      calibration: found.calibration ?? "none",
      threshold: (own ?? calib)?.threshold ?? null,
      pixel_threshold: this.pixels ? calib?.pixel_threshold : undefined,
    };
  }

  facts() {
    return this.served;
  }

  /** What is missing for any verdict at all. */
  lack() {
    return lackOf(this.served);
  }

  /**
   * Whether a reply is of what is served now.
   * @param {any} reply of `/infer`
   */
  confirms(reply) {
    return isOf(this.served, reply, this.pixels);
  }
}

/** @param {Served | null} served @returns {"unfitted" | "stale" | "no_threshold" | null} what is missing for any verdict at all */
export function lackOf(served) {
  if (!served) return null;
  const { fitted, calibration } = served;
  if (!fitted) return "unfitted";
  return calibration === "applied" ? null : calibration === "stale" ? "stale" : "no_threshold";
}

/**
 * Whether a reply is of what is served.
 * @param {Served | null} served
 * @param {any} reply of `/infer`
 * @param {boolean} pixels regions decide, too
 */
export function isOf(served, reply, pixels) {
  if (!served || served.calibration !== "applied" || served.memory_id !== (reply.model.memory_id ?? null)) return false;
  if (pixels && served.pixel_threshold !== reply.pixel_threshold) return false;
  return served.threshold === reply.threshold;
}

/**
 * Whether the model that is served was fitted on what the ROI shows now. A ROI that moved since is another place.
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
