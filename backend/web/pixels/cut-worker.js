// @ts-check
/** The worker's end: answers {id, name, args} with {id, value} or {id, error, noCanvas}, one after the other: memory is for one. */

import { CanvasError } from "./bytes.js";
import * as cutter from "./cutter.js";

let last = Promise.resolve();

/** @param {{id: number, name: string, args: unknown[]}} call */
async function answer({ id, name, args }) {
  try {
    const value = await /** @type {any} */ (cutter)[name](...args);
    self.postMessage({ id, value }, { transfer: value instanceof ImageBitmap ? [value] : [] });
  } catch (error) {
    self.postMessage({ id, error: error instanceof Error ? error.message : String(error), noCanvas: error instanceof CanvasError });
  }
}

self.addEventListener("message", ({ data }) => {
  last = last.then(() => answer(data));
});
