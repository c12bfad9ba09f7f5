// @ts-check
/** Small pictures of stored images, a few at a time. */
import { fetchBlob, idsOf } from "./api.js";
import { giveBack } from "./blobs.js";
import { fill, h } from "./dom.js";
import { Few } from "./few.js";
import { messageOf } from "./texts.js";

const AT_ONCE = 4;
const SIZE = 256;

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
