// @ts-check
/** The worker's end: answers {id, name, args} with {id, value} or {id, error}. */

import * as cutter from "./cutter.js";

self.addEventListener("message", async ({ data: { id, name, args } }) => {
  try {
    const value = await /** @type {any} */ (cutter)[name](...args);
    self.postMessage({ id, value }, { transfer: value instanceof ImageBitmap ? [value] : [] });
  } catch (error) {
    self.postMessage({ id, error: error instanceof Error ? error.message : String(error) });
  }
});
