// @ts-check
/** How many parts got which verdict, and how many come a second. */

/** @typedef {import("../verdict.js").Word} Word */

const SPEED_OVER_MS = 10000;

export class Tally {
  constructor() {
    /** @type {Record<Word, number>} */
    this.n = { ok: 0, ng: 0, none: 0 };
    /** @type {number[]} of the last parts, by `performance.now()` */
    this.times = [];
  }

  /** @param {Word} word */
  add(word) {
    this.n[word]++;
    this.times.push(performance.now());
  }

  /** Parts a second of the last ten, or since the first. */
  get per_s() {
    const now = performance.now();
    this.times = this.times.filter((time) => now - time < SPEED_OVER_MS);
    if (this.times.length < 2) return 0;
    return (this.times.length - 1) / Math.max(0.1, (now - this.times[0]) / 1000);
  }

  clear() {
    this.n = { ok: 0, ng: 0, none: 0 };
  }
}
