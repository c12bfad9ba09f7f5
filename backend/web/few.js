// @ts-check
/** Work of which only a few pieces are done at once, first come first served: a screen full of pictures is no storm of requests. */

export class Few {
  /** @param {number} most pieces at once */
  constructor(most) {
    this.free = most;
    /** @type {(() => void)[]} */
    this.waiting = [];
  }

  /**
   * Do a piece of work once it is its turn.
   * @template T
   * @param {() => T | Promise<T>} work
   * @returns {Promise<T>}
   */
  async run(work) {
    if (this.free > 0) this.free--;
    else await new Promise((resolve) => this.waiting.push(() => resolve(null)));
    try {
      return await work();
    } finally {
      const next = this.waiting.shift();
      if (next) next();
      else this.free++;
    }
  }
}
