// @ts-check
/**
 * A watched folder: each file once, in order, none lost. A file counts when its size and its time have stood still for a
 * second. What was judged is remembered over reloads; a file that was written anew is another one.
 */
import { pause } from "../api.js";
import { isPicture } from "../ingest.js";
import { messageOf, t } from "../texts.js";
import "../texts-later.js";
import { forgetJudged, judgedFiles, keepJudged } from "./judged.js";
import { Bell, byName } from "./source.js";

/** @typedef {import("./source.js").Frame} Frame */
/** @typedef {import("./source.js").Source} Source */
/** @typedef {{path: string, stamp: string, file: File}} Waiting */

const SCAN_EVERY_MS = 500;
const STILL_MS = 1000;

/** Why this browser watches no folder here. @returns {string | null} */
export function whyNoFolder() {
  if (!isSecureContext) return t("live.folder.insecure");
  return "showDirectoryPicker" in window ? null : t("live.folder.unsupported");
}

/** @implements {Source} */
export class WatchedFolder {
  /**
   * @param {FileSystemDirectoryHandle} handle
   * @param {string} id under which it is remembered what was judged
   */
  constructor(handle, id) {
    this.kind = /** @type {const} */ ("folder");
    this.handle = handle;
    this.id = id;
    this.name = handle.name;
    this.dropped = 0;
    /** @type {string | null} */
    this.problem = null;
    /** @type {Map<string, string>} stamps by path of all that is not to be given again */
    this.known = new Map();
    /** @type {Map<string, {stamp: string, since: number}>} files that were seen once */
    this.settling = new Map();
    /** @type {Waiting[]} */
    this.waiting = [];
    /** @type {Map<Frame, Waiting>} */
    this.given = new Map();
    /** @type {Waiting | null} */
    this.reading = null;
    this.bell = new Bell();
    this.abort = new AbortController();
    void this.watch();
  }

  get backlog() {
    return this.waiting.length + this.given.size + (this.reading ? 1 : 0);
  }

  async watch() {
    const { signal } = this.abort;
    let isKnown = false;
    while (!signal.aborted) {
      const begun = performance.now();
      try {
        if (!isKnown) this.known = await judgedFiles(this.id);
        isKnown = true;
        await this.scan();
        this.problem = null;
      } catch (problem) {
        this.problem = t("live.folder.unreadable", { name: this.name, reason: messageOf(problem) }); // a share that is away comes back
      }
      this.bell.ring();
      try {
        await pause(Math.max(SCAN_EVERY_MS, 2 * (performance.now() - begun)), signal);
      } catch {
        return; // closed
      }
    }
  }

  /** Look at every file once. */
  async scan() {
    const now = performance.now();
    const on_the_way = new Map([...this.waiting, ...this.given.values(), ...(this.reading ? [this.reading] : [])].map(({ path, stamp }) => [path, stamp]));
    /** @type {Set<string>} */
    const seen = new Set();
    /** @type {Waiting[]} */
    const found = [];
    for await (const { path, file } of filesBelow(this.handle, "")) {
      if (this.abort.signal.aborted) return;
      seen.add(path);
      if (!file) continue;
      const stamp = `${file.size}/${file.lastModified}`;
      if (this.known.get(path) === stamp || on_the_way.get(path) === stamp) continue;
      const before = this.settling.get(path);
      if (before?.stamp !== stamp) this.settling.set(path, { stamp, since: now });
      else if (file.size > 0 && now - before.since >= STILL_MS) {
        this.settling.delete(path);
        found.push({ path, stamp, file });
      }
    }
    found.sort((a, b) => a.file.lastModified - b.file.lastModified || byName(a.path, b.path));
    const renewed = new Set(found.map(({ path }) => path));
    this.waiting = [...this.waiting.filter(({ path }) => seen.has(path) && !renewed.has(path)), ...found];
    for (const path of this.settling.keys()) if (!seen.has(path)) this.settling.delete(path);
    if (seen.size) await this.forget([...this.known.keys()].filter((path) => !seen.has(path))); // a share that is away may look empty
  }

  /** What is gone needs no memory; of a folder that stands for years it would only grow. @param {string[]} paths */
  async forget(paths) {
    if (!paths.length) return;
    await forgetJudged(this.id, paths);
    for (const path of paths) this.known.delete(path);
  }

  /** @param {AbortSignal} signal @returns {Promise<Frame>} */
  async next(signal) {
    for (;;) {
      const first = this.waiting.shift();
      if (!first) {
        await this.bell.wait(signal);
        continue;
      }
      this.reading = first;
      const blob = await copyOf(first.file);
      this.reading = null;
      if (!blob) continue;
      const frame = { name: first.path, blob, id: await idOf(`${this.id}/${first.path}/${first.stamp}`) };
      this.given.set(frame, first);
      return frame;
    }
  }

  /** @param {Frame} frame */
  async done(frame) {
    const file = this.given.get(frame);
    if (!file) return;
    await keepJudged(this.id, [[file.path, file.stamp]]);
    this.known.set(file.path, file.stamp);
    this.given.delete(frame);
  }

  /** Pass over all that waits, for good. */
  async skip() {
    const passed = this.waiting.splice(0);
    for (const { path, stamp } of passed) this.known.set(path, stamp);
    await keepJudged(this.id, passed.map(({ path, stamp }) => [path, stamp]));
  }

  close() {
    this.abort.abort();
  }
}

/** The same after a reload. @param {string} text */
async function idOf(text) {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)); // pages that may watch folders have it
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * @param {FileSystemDirectoryHandle} folder
 * @param {string} above its path
 * @returns {AsyncGenerator<{path: string, file: File | null}>} pictures in it and below; null: see `fileOf`
 */
async function* filesBelow(folder, above) {
  for await (const entry of /** @type {any} */ (folder).values()) {
    const path = above + entry.name;
    if (entry.kind === "directory") yield* filesBelow(entry, `${path}/`);
    else if (isPicture(entry.name)) yield { path, file: await fileOf(entry) };
  }
}

/** @param {FileSystemFileHandle} entry @returns {Promise<File | null>} null: it is gone, or its writer holds it; the next look finds it */
async function fileOf(entry) {
  try {
    return await entry.getFile();
  } catch (problem) {
    if (problem instanceof DOMException) return null;
    throw problem;
  }
}

/** @param {File} file @returns {Promise<Blob | null>} null: it was changed or deleted since it stood still; the next look tells */
async function copyOf(file) {
  try {
    return new Blob([await file.arrayBuffer()], { type: file.type });
  } catch (problem) {
    if (problem instanceof DOMException) return null;
    throw problem;
  }
}
