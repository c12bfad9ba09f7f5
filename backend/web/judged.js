// @ts-check
/**
 * The last parts that were judged in this browser, each with the very crop that was sent, and what a person says of it. A ROI has so
 * many of them and hardly more: those that were marked stay longest, then those that were rejected.
 */
import { Database } from "./database.js";
import { roiText } from "./router.js";
import { messageOf } from "./texts.js";

const PARTS = "parts";
const MOST = 1000;
const MOST_BYTES = 300 * 1024 * 1024;
const ROOM_EVERY = 32; // parts: to look for room takes longer than to keep one

/** @typedef {"good" | "bad"} Truth */
/**
 * @typedef {object} Facts
 * @property {string} id
 * @property {string} roi see `roiText`
 * @property {string} at when it was judged, ISO 8601
 * @property {"ok" | "ng" | null} decision
 * @property {number} score
 * @property {number | null} threshold
 * @property {string | null} request_id by which `/history` names it, too
 * @property {Truth | null} truth what a person says that the part is
 * @property {boolean} learnt whether that became feedback
 */
/** @typedef {import("./question.js").Sent & Facts} Judged */

/** What could not be kept since the page was opened. */
export const lost = { n: 0, reason: "" };

/** @type {Map<string, number>} of each ROI, since the page was opened */
const kept = new Map();

const database = new Database("roi-anomaly-judged", 1, (made) => {
  made.createObjectStore(PARTS, { keyPath: "id" }).createIndex("roi", "roi");
});

/**
 * @template T
 * @param {IDBTransactionMode} mode
 * @param {(store: IDBObjectStore) => IDBRequest<T> | T} work
 */
const transact = (mode, work) => database.transact([PARTS], mode, work);

/** @param {import("./api.js").RoiKey} key @returns {Promise<Judged[]>} the newest first; with those that are about to be kept */
export async function judgedParts(key) {
  await keeping;
  return stored(key);
}

/** @param {import("./api.js").RoiKey} key @returns {Promise<Judged[]>} */
async function stored(key) {
  const found = await transact("readonly", (store) => store.index("roi").getAll(roiText(key)));
  return found.sort((a, b) => (a.at < b.at ? 1 : -1));
}

/**
 * Keep a part that was judged. If it is judged again, what a person said of it stays. A browser that has no room judges on all the
 * same: `lost` counts what it did not keep.
 * @param {import("./api.js").RoiKey} key
 * @param {import("./question.js").Sent & {id: string}} part
 * @param {any} reply of `/infer`
 * @returns {Promise<void>}
 */
export function keepJudged(key, part, reply) {
  keeping = keeping.then(() => keep(key, part, reply));
  return keeping;
}

/** @type {Promise<void>} one after the other */
let keeping = Promise.resolve();

/**
 * @param {import("./api.js").RoiKey} key
 * @param {import("./question.js").Sent & {id: string}} part
 * @param {any} reply
 */
async function keep(key, part, reply) {
  try {
    const before = await transact("readonly", (store) => store.get(part.id));
    /** @type {Judged} */
    const judged = {
      ...part, roi: roiText(key), at: new Date().toISOString(), decision: reply.decision ?? null, score: reply.score,
      threshold: reply.threshold ?? null, request_id: reply.request_id ?? null, truth: before?.truth ?? null, learnt: before?.learnt ?? false,
    };
    await transact("readwrite", (store) => { store.put(judged); });
    const n = kept.get(judged.roi) ?? 0;
    kept.set(judged.roi, n + 1);
    if (n % ROOM_EVERY === 0) await makeRoom(key);
  } catch (problem) {
    lost.n++;
    lost.reason = messageOf(problem);
  }
}

/** @param {Judged} part @param {Partial<Judged>} change */
export async function changeJudged(part, change) {
  Object.assign(part, change);
  await transact("readwrite", (store) => { store.put(part); });
}

/** @param {import("./api.js").RoiKey} key */
export async function forgetJudged(key) {
  await forget((await judgedParts(key)).map(({ id }) => id));
}

/** @param {string[]} ids */
async function forget(ids) {
  await transact("readwrite", (store) => {
    for (const id of ids) store.delete(id);
  });
}

/** @param {import("./api.js").RoiKey} key */
async function makeRoom(key) {
  const worth = (/** @type {Judged} */ { truth, decision }) => (truth ? 0 : decision === "ng" ? 1 : 2);
  const parts = (await stored(key)).sort((a, b) => worth(a) - worth(b)); // the newest of each first
  let bytes = 0;
  const over = parts.filter(({ crop }, at) => {
    bytes += crop.size;
    return at >= MOST || bytes > MOST_BYTES;
  });
  if (over.length) await forget(over.map(({ id }) => id));
}
