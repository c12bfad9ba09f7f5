// @ts-check
/** A recorded folder that plays a camera: so many pictures a second, over and over, and the newest wins. */
import { pause } from "../api.js";

/** @typedef {import("./source.js").Frame} Frame */
/** @typedef {import("./source.js").Source} Source */
/** @typedef {import("../ingest.js").Found} Found */

/** @implements {Source} */
export class RecordedCamera {
  /**
   * @param {Found[]} found at least one
   * @param {{name: string, per_s: number, again: boolean}} how again: from the beginning once the last was shown
   */
  constructor(found, { name, per_s, again }) {
    this.kind = /** @type {const} */ ("camera");
    this.name = name;
    this.found = found;
    this.every_ms = 1000 / per_s;
    this.again = again;
    this.backlog = 0;
    this.dropped = 0;
    /** @type {string | null} */
    this.problem = null;
    /** Number of the last frame that was given; the first begins when it is asked for. */
    this.given = -1;
    this.begun_at = NaN;
  }

  /** @param {AbortSignal} signal @returns {Promise<Frame | null>} */
  async next(signal) {
    if (Number.isNaN(this.begun_at)) this.begun_at = performance.now();
    const last = this.again ? Infinity : this.found.length - 1;
    if (this.given >= last) return null;
    const shown = () => Math.min(last, Math.floor((performance.now() - this.begun_at) / this.every_ms));
    while (shown() <= this.given) {
      await pause(Math.max(1, this.begun_at + (this.given + 1) * this.every_ms - performance.now()), signal);
    }
    const number = shown();
    this.dropped += number - this.given - 1;
    this.given = number;
    const { file } = this.found[number % this.found.length];
    return { name: file.name, blob: file };
  }

  /** While nothing is judged, the recording stands still: what was not shown is not counted as passed over. */
  hold() {
    this.begun_at = performance.now() - (this.given + 1) * this.every_ms;
  }

  async done() {}

  close() {}
}
