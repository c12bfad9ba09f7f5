// @ts-check
/** A folder that was dropped or chosen: each of its pictures once, in the order of their names. It works in every browser. */

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
  }

  get backlog() {
    return this.waiting.length + this.given;
  }

  /** @returns {Promise<Frame | null>} */
  async next() {
    const first = this.waiting.shift();
    if (!first) return null;
    this.given++;
    return { name: first.file.name, blob: first.file };
  }

  async done() {
    this.given--;
  }

  close() {
    this.waiting = [];
  }
}
