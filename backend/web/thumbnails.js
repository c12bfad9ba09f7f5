// @ts-check
/** Small pictures of stored images, a few at a time, and their addresses in the memory of this browser. */
import { fetchBlob, idsOf } from "./api.js";
import { fill, h } from "./dom.js";
import { messageOf } from "./texts.js";

const AT_ONCE = 4;
const SIZE = 256;
const LOADED_WITHIN_MS = 10_000;

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

/**
 * Give an address back, not before an element that is still loading its picture has done so.
 * @param {Promise<string | null>} address
 */
export function giveBack(address) {
  address.then(
    (url) => url && setTimeout(() => URL.revokeObjectURL(url), LOADED_WITHIN_MS),
    () => undefined, // there is none
  );
}

export class Thumbnails {
  /** @param {import("./api.js").RoiKey} key */
  constructor(key) {
    this.key = key;
    this.abort = new AbortController();
    /** @type {Map<string, Promise<string>>} */
    this.urls = new Map();
    this.few = new Few(AT_ONCE);
  }

  /**
   * An element that shows a stored image once it is here.
   * @param {string} label
   * @param {string} filename
   */
  picture(label, filename) {
    const place = h("div.thumb");
    void this.show(place, label, filename);
    return place;
  }

  /** @param {HTMLElement} place @param {string} label @param {string} filename */
  async show(place, label, filename) {
    await null; // until it stands in the page
    try {
      const src = await this.few.run(() => (place.isConnected ? this.urlOf(label, filename) : null)); // null: another one stands there
      if (src) fill(place, h("img", { src, alt: "", draggable: "false" }));
    } catch (problem) {
      if (!this.abort.signal.aborted) fill(place, h("p.muted", {}, messageOf(problem)));
    }
  }

  /** @param {string} label @param {string} filename @returns {Promise<string>} */
  urlOf(label, filename) {
    const query = { ...idsOf(this.key), label, filename, size: SIZE };
    const found = this.urls.get(filename) ?? fetchBlob("datasets/file", { query, signal: this.abort.signal }).then(URL.createObjectURL);
    this.urls.set(filename, found);
    found.catch(() => this.urls.delete(filename));
    return found;
  }

  close() {
    this.abort.abort();
    for (const url of this.urls.values()) giveBack(url);
  }
}
