// @ts-check
/** Small pictures of stored images, a few at a time. */
import { fetchBlob, idsOf } from "./api.js";
import { giveBack } from "./blobs.js";
import { fill, h } from "./dom.js";
import { Few } from "./few.js";

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
    const url = this.urls.get(filename) ?? this.load(label, filename);
    this.urls.set(filename, url);
    url.then(
      (src) => fill(place, h("img", { src, alt: "", draggable: "false" })),
      (problem) => {
        this.urls.delete(filename);
        if (!this.abort.signal.aborted) fill(place, h("p.muted", {}, problem.message));
      },
    );
    return place;
  }

  /** @param {string} label @param {string} filename @returns {Promise<string>} */
  async load(label, filename) {
    const query = { ...idsOf(this.key), label, filename, size: SIZE };
    return URL.createObjectURL(await this.few.run(() => fetchBlob("datasets/file", { query, signal: this.abort.signal })));
  }

  close() {
    this.abort.abort();
    for (const url of this.urls.values()) giveBack(url);
  }
}
