// @ts-check
/** The service over HTTP: keys, retries, and every refusal as an `ApiError` in the service's own words. */
import { t } from "./texts.js";

const KEY = "roi-anomaly-key";
const MOST_TRIES = 6;
const LONGEST_WAIT_S = 30;
/** Where the service is: also right below a path that a proxy adds. */
const BASE = new URL("../", import.meta.url);

/** @typedef {{role_id: string, roi_id: string, recipe_id: string, model_key: string}} RoiKey */
/**
 * @typedef {object} Call
 * @property {string} [method]
 * @property {Record<string, string | number | boolean | undefined>} [query]
 * @property {unknown} [json] body
 * @property {FormData} [form] body
 * @property {Blob} [blob] body, of its own type
 * @property {Record<string, string>} [headers]
 * @property {AbortSignal} [signal]
 * @property {number} [timeoutMs] none: as long as it takes
 * @property {number} [tries] how often a busy service is asked before its refusal is an error
 * @property {boolean} [quiet] neither ask for a key nor try again: for what is asked every second
 */

export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {number} status 0 where the service did not answer
   * @param {string} code of the service, or `unreachable`, `timeout`
   * @param {number} [wait_s] for which a busy service asked to wait
   */
  constructor(message, status, code, wait_s = 0) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.code = code;
    this.wait_s = wait_s;
  }
}

/** What the rest of the console wants to know of its requests. */
export const hooks = {
  /** Ask a person for a key. @type {(reason: string) => Promise<boolean>} resolves to whether there is a new one */
  askForKey: async (_reason) => false,
  /** The service asked to wait. @type {(seconds: number, error: string) => void} */
  onWait: (_seconds, _error) => {},
};

/** @returns {string} the key of this tab, or nothing */
export function currentKey() {
  return sessionStorage.getItem(KEY) ?? "";
}

/** @param {string} key empty forgets it */
export function useKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

/** @returns {string} an id for a request, by which `/runs` and the log name it */
export function newId() {
  return [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * The ids of a ROI as form fields, with others.
 * @param {RoiKey} roi
 * @param {Record<string, string | number | boolean | undefined | null>} [fields]
 */
export function formOf(roi, fields = {}) {
  const form = new FormData();
  for (const [name, value] of Object.entries({ ...idsOf(roi), ...fields })) {
    if (value !== undefined && value !== null) form.append(name, String(value));
  }
  return form;
}

/** @param {RoiKey} roi @returns {RoiKey} the ids alone */
export function idsOf({ role_id, roi_id, recipe_id, model_key }) {
  return { role_id, roi_id, recipe_id, model_key };
}

/**
 * @param {string} path without a slash before it
 * @param {Call} [call]
 * @returns {Promise<any>} the reply's JSON
 * @throws {ApiError}
 */
export async function call(path, call = {}) {
  const reply = await send(path, call);
  return reply.status === 204 ? null : arrived(reply.json(), call, reply.status);
}

/**
 * @param {string} path
 * @param {Call} [call]
 * @returns {Promise<Blob>}
 */
export async function fetchBlob(path, call = {}) {
  return arrived((await send(path, call)).blob(), call);
}

/**
 * @param {string} path
 * @param {Call} call
 * @returns {Promise<Response>} one that succeeded
 */
export async function send(path, call) {
  for (let attempt = 1; ; attempt++) {
    const key = currentKey();
    const reply = await sendOnce(path, call);
    if (reply.ok) return reply;
    const error = await refusal(reply, call);
    if (call.quiet) throw error;
    if (reply.status === 401 && (currentKey() !== key || (await hooks.askForKey(error.message)))) continue;
    if (!error.wait_s || attempt >= (call.tries ?? MOST_TRIES)) throw error;
    hooks.onWait(error.wait_s, error.message);
    await pause(error.wait_s * 1000, call.signal);
  }
}

/** @param {string} path @param {Call} call */
async function sendOnce(path, { method, query = {}, json, form, blob, headers = {}, signal, timeoutMs }) {
  const url = new URL(path, BASE);
  for (const [name, value] of Object.entries(query)) if (value !== undefined) url.searchParams.set(name, String(value));
  const key = currentKey();
  const signals = [signal, timeoutMs ? AbortSignal.timeout(timeoutMs) : undefined].filter((one) => one !== undefined);
  const reply = fetch(url, {
    method: method ?? (json !== undefined || form ? "POST" : "GET"),
    headers: {
      ...(key ? { "X-API-Key": key } : {}),
      ...(json !== undefined ? { "Content-Type": "application/json" } : {}),
      ...headers,
    },
    body: form ?? blob ?? (json !== undefined ? JSON.stringify(json) : undefined),
    signal: signals.length ? AbortSignal.any(signals) : undefined,
    credentials: "omit",
    redirect: "error",
    referrerPolicy: "no-referrer",
  });
  return arrived(reply, { signal });
}

/** Wait for a reply or its body. @template T @param {Promise<T>} part @param {Call} call @param {number} [status] of a reply in JSON @throws {ApiError} */
export function arrived(part, { signal }, status = 0) {
  return part.catch((problem) => {
    if (signal?.aborted) throw problem;
    if (problem instanceof SyntaxError) throw new ApiError(t("api.strange", { status }), status, "");
    const code = problem.name === "TimeoutError" ? "timeout" : "unreachable";
    throw new ApiError(t(`api.${code}`), 0, code);
  });
}

/** @param {Response} reply @param {Call} call */
async function refusal(reply, call) {
  const isBusy = reply.status === 503 || reply.status === 429;
  const wait_s = isBusy ? Math.min(Number(reply.headers.get("Retry-After")) || 1, LONGEST_WAIT_S) : 0;
  const text = await arrived(reply.text(), call);
  try {
    const body = JSON.parse(text);
    const error = reply.status === 401 ? t(currentKey() ? "key.unknown" : "key.needed") : String(body.error);
    return new ApiError(error, reply.status, String(body.code ?? ""), wait_s);
  } catch {
    return new ApiError(t("api.strange", { status: reply.status }), reply.status, "", wait_s);
  }
}

/**
 * Wait, unless the signal ends it.
 * @param {number} ms
 * @param {AbortSignal} [signal]
 * @returns {Promise<void>}
 */
export function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const end = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", end);
      resolve();
    }, ms);
    if (signal?.aborted) end();
    else signal?.addEventListener("abort", end, { once: true });
  });
}
