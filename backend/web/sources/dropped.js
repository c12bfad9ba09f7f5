// @ts-check
/** A folder that was dropped or chosen: each of its pictures once, in the order of their names. It works in every browser. */
import { Bell } from "./source.js";

/** @typedef {import("./source.js").Frame} Frame */
/** @typedef {import("./source.js").Source} Source */
/** @typedef {import("../ingest.js").Found} Found */

/** @implements {Source} */
export class DroppedFolder {
  /** @param {Found[]} found @param {string} name */
  constructor(found, name) {
    this.kind = /** @type {const} */ ("folder");
    this.name = name;
    this.dropped = 0;
    /** @type {string | null} */
    this.problem = null;
    /** @type {Found[]} */
    this.waiting = [...found];
    this.given = 0;
    this.bell = new Bell();
  }

  get backlog() {
    return this.waiting.length + this.given;
  }

  /** @param {Found[]} found */
  add(found) {
    this.waiting.push(...found);
    this.bell.ring();
  }

  /** @param {AbortSignal} signal @returns {Promise<Frame>} */
  async next(signal) {
    for (;;) {
      const first = this.waiting.shift();
      if (first) {
        this.given++;
        return { name: first.file.name, blob: first.file, taken_at: Date.now() };
      }
      await this.bell.wait(signal);
    }
  }

  async done() {
    this.given--;
  }

  close() {
    this.waiting = [];
  }
}
