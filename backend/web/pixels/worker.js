// @ts-check
/**
 * The page's end of the worker. Where the page's policy allows no worker, the same code runs in the page.
 *
 * A policy with `require-trusted-types-for 'script'` takes the worker's address from a Trusted Types policy alone:
 * `trusted-types pixels-worker` allows the one that is made here, which knows a single address.
 */

import * as cutter from "./cutter.js";

const ADDRESS = new URL("./cut-worker.js", import.meta.url).href;

/** @type {Worker|null|undefined} undefined: not yet asked for; null: not allowed */
let worker;
let calls = 0;
/** @type {Map<number, {resolve: (value: any) => void, reject: (error: Error) => void}>} */
const waiting = new Map();

/** @returns {any} the address as the page's policy wants it */
function trustedAddress() {
  const types = /** @type {any} */ (globalThis).trustedTypes;
  return types ? types.createPolicy("pixels-worker", { createScriptURL: () => ADDRESS }).createScriptURL("") : ADDRESS;
}

/** @returns {Worker|null} */
function started() {
  if (worker !== undefined) return worker;
  try {
    worker = new Worker(trustedAddress(), { type: "module" });
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    console.info("Pictures are cut in the page: its policy allows no worker.", error.message);
    worker = null;
    return null;
  }
  worker.addEventListener("message", ({ data: { id, value, error } }) => {
    const call = waiting.get(id);
    waiting.delete(id);
    if (error === undefined) call?.resolve(value);
    else call?.reject(new Error(error));
  });
  worker.addEventListener("error", (event) => {
    event.preventDefault();
    for (const { reject } of waiting.values()) reject(new Error(`the worker that cuts pictures ended: ${event.message}`));
    waiting.clear();
    worker?.terminate();
    worker = undefined; // the next call starts a fresh one
  });
  return worker;
}

/** Whether a worker cuts, and not the page. */
export const inWorker = () => started() !== null;

/**
 * Call a function of cutter.js.
 * @template {"decode"|"cut"|"pixels"|"view"} Name
 * @param {Name} name
 * @param {Parameters<typeof cutter[Name]>} args
 * @returns {ReturnType<typeof cutter[Name]>}
 */
export function call(name, ...args) {
  const target = started();
  if (!target) return /** @type {any} */ (cutter)[name](...args);
  const answer = new Promise((resolve, reject) => {
    const id = calls++;
    waiting.set(id, { resolve, reject });
    target.postMessage({ id, name, args });
  });
  return /** @type {any} */ (answer);
}
