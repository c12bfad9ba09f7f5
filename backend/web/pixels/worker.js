// @ts-check
/**
 * The page's end of the worker that cuts.
 *
 * The page's policy demands Trusted Types, so the worker's address comes from the one policy that it allows,
 * `console-worker`, which knows a single address.
 *
 * @typedef {typeof import("./cutter.js")} Cutter
 */

import { t } from "../texts.js";

const ADDRESS = new URL("./cut-worker.js", import.meta.url).href;

/** @type {any} */
const types = /** @type {any} */ (globalThis).trustedTypes;
/** @type {any} the address as browsers with and without Trusted Types take it */
const address = types
  ? types.createPolicy("console-worker", { createScriptURL: () => ADDRESS }).createScriptURL("")
  : ADDRESS;

/** @type {Worker|null} */
let worker = null;
let calls = 0;
/** @type {Map<number, {resolve: (value: any) => void, reject: (error: Error) => void}>} */
const waiting = new Map();

function started() {
  if (worker) return worker;
  worker = new Worker(address, { type: "module" });
  worker.addEventListener("message", ({ data: { id, value, error, noCanvas } }) => {
    const call = waiting.get(id);
    waiting.delete(id);
    if (error === undefined) call?.resolve(value);
    else call?.reject(new Error(noCanvas ? t("picture.no_canvas", { size: error }) : error));
  });
  worker.addEventListener("error", (event) => {
    event.preventDefault();
    const reason = new Error(t("picture.worker_ended", { reason: event.message ?? t("picture.worker_missing") }));
    for (const { reject } of waiting.values()) reject(reason);
    waiting.clear();
    worker?.terminate();
    worker = null; // the next call starts a fresh one
  });
  return worker;
}

/**
 * Call a function of cutter.js in the worker.
 * @template {"open"|"cut"|"pixels"|"view"|"find"|"firmness"} Name
 * @param {Name} name
 * @param {Parameters<Cutter[Name]>} args
 * @returns {ReturnType<Cutter[Name]>}
 */
export function call(name, ...args) {
  const target = started();
  const answer = new Promise((resolve, reject) => {
    const id = calls++;
    waiting.set(id, { resolve, reject });
    target.postMessage({ id, name, args });
  });
  return /** @type {any} */ (answer);
}
