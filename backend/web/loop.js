// @ts-check
/**
 * Pictures of a source, judged one after the other for as long as it runs.
 *
 * Of a camera the newest frame wins: it is taken as late as its preparation allows, and one without an answer is not asked about
 * again. Of a folder nothing is lost: a file without an answer is asked about until it has one, before any other. While the service judges a
 * picture, the next one is read, decoded and cut. Nothing is sent before the time for which the service asked has passed.
 */
import { newId } from "./api.js";
import { cutAhead, judgePart } from "./part.js";
import { openPicture } from "./pixels/picture.js";
import { Bell } from "./sources/source.js";
import { messageOf } from "./texts.js";

/** @typedef {import("./sources/source.js").Frame} Frame */
/** @typedef {import("./sources/source.js").Source} Source */
/** @typedef {import("./part.js").Part} Part */
/** @typedef {import("./pixels/picture.js").Picture} Picture */
/** @typedef {import("./recipe-guard.js").RecipeGuard} RecipeGuard */
/** @typedef {{frame: Frame, picture: Picture | null, problem: string, before: Part | null}} Ready a picture that may be judged; before: what was answered already */
/** @typedef {{frame: Frame, picture: Picture | null, part: Part}} Judged */

const RETRY_MS = 1000;
const LOOK_AGAIN_MS = 200;
/** Of the newest duration in the running mean. */
const SHARE = 0.3;

export class Loop {
  /**
   * @param {Source} source
   * @param {RecipeGuard} guard started
   * @param {{isTest: () => boolean, onPart: (judged: Judged) => void, onChange: () => void}} how
   */
  constructor(source, guard, how) {
    this.source = source;
    this.guard = guard;
    this.how = how;
    this.paused = false;
    /** Pictures that shall be judged although it is paused. */
    this.singles = 0;
    /** @type {{name: string, since: number} | null} what has no verdict yet */
    this.judging = null;
    /** Until when nothing is asked; and until when because the service is busy: by `performance.now()`. */
    this.wait_until = 0;
    this.busy_until = 0;
    /** The source has no more. */
    this.ended = false;
    /** @type {string | null} why it stopped for good */
    this.failed = null;
    /** @type {Ready | null} a file that has no answer yet */
    this.again = null;
    /** @type {{ready: Promise<Ready | null>, abort: AbortController} | null} */
    this.ahead = null;
    this.usual = { prepare_ms: 0, judge_ms: 0 };
    this.bell = new Bell();
    this.abort = new AbortController();
  }

  /** Until it is closed, or the source has no more. */
  async run() {
    try {
      for (;;) {
        await this.mayGoOn();
        const ready = this.again ?? (await this.next());
        if (!ready) break;
        this.again = null;
        if (!this.isHeld()) await this.judge(ready);
        else if (this.source.kind === "folder") this.again = ready;
      }
      this.ended = true;
      this.how.onChange();
    } catch (problem) {
      if (this.abort.signal.aborted) return;
      this.failed = messageOf(problem);
      this.how.onChange();
      throw problem;
    }
  }

  /** Whether nothing is to be judged now. */
  isHeld() {
    return (this.paused && this.singles === 0) || this.guard.doubt() !== null || performance.now() < this.wait_until;
  }

  async mayGoOn() {
    if (!this.isHeld()) return;
    if (this.source.kind === "camera") this.forgetAhead(); // an older frame than the one that will be judged
    while (this.isHeld()) await this.bell.wait(this.abort.signal, LOOK_AGAIN_MS);
    this.source.hold?.();
  }

  /** @returns {Promise<Ready | null>} */
  next() {
    const next = this.ahead?.ready ?? this.prepare(this.abort.signal);
    this.ahead = null;
    return next;
  }

  /** @param {AbortSignal} signal @returns {Promise<Ready | null>} */
  async prepare(signal) {
    const frame = await this.source.next(signal);
    if (!frame) return null;
    frame.id ??= newId();
    const begun = performance.now();
    /** @type {Ready} */
    const ready = { frame, picture: null, problem: "", before: null };
    try {
      ready.picture = await openPicture(frame.blob, { name: frame.name });
      await cutAhead(this.guard, ready.picture);
    } catch (problem) {
      ready.problem = messageOf(problem);
    }
    this.usual.prepare_ms = mean(this.usual.prepare_ms, performance.now() - begun);
    return ready;
  }

  /** Prepare the next picture while this one is judged: of a camera so late that it is as new as it can be. */
  lookAhead() {
    const abort = new AbortController();
    const signal = AbortSignal.any([abort.signal, this.abort.signal]);
    const late_ms = this.source.kind === "camera" ? Math.max(0, this.usual.judge_ms - this.usual.prepare_ms) : 0;
    const ready = this.bell.wait(signal, late_ms).then(() => this.prepare(signal));
    ready.catch(() => undefined); // told to whoever waits for it
    this.ahead = { ready, abort };
  }

  forgetAhead() {
    this.ahead?.abort.abort();
    this.ahead = null;
  }

  /** @param {Ready} ready */
  async judge(ready) {
    const { frame, picture, problem, before } = ready;
    const isSingle = this.singles > 0;
    if (!before || !this.judging) this.judging = { name: frame.name, since: performance.now() };
    this.how.onChange();
    if (!this.ahead && !isSingle) this.lookAhead();
    const begun = performance.now();
    const { signal } = this.abort;
    const part = picture ? await judgePart(this.guard, picture, { id: String(frame.id), signal, isTest: this.how.isTest(), tries: 1, before }) : notJudged(problem);
    const took_ms = performance.now() - begun;
    if (part.wait_s) this.wait_until = this.busy_until = performance.now() + 1000 * part.wait_s;
    if (part.again) this.wait_until = Math.max(this.wait_until, performance.now() + RETRY_MS);
    if (this.source.kind === "folder" && part.again) {
      this.again = { ...ready, before: part };
      this.how.onChange();
      return;
    }
    this.judging = null;
    if (part.verdict !== "none") this.usual.judge_ms = mean(this.usual.judge_ms, took_ms);
    if (isSingle) this.singles--;
    this.how.onPart({ frame, picture, part });
    await this.source.done(frame);
    this.how.onChange();
  }

  /** @param {boolean} paused */
  pause(paused) {
    this.paused = paused;
    this.singles = 0;
    this.bell.ring();
    this.how.onChange();
  }

  /** Judge one picture, and no more. */
  single() {
    this.paused = true;
    this.singles = 1;
    this.bell.ring();
    this.how.onChange();
  }

  /** Pass over all files that wait, for good: also the one that gets no answer. */
  async skip() {
    const { source, again } = this;
    this.again = null;
    this.judging = null;
    if (again) await source.done(again.frame);
    await source.skip?.();
    this.how.onChange();
  }

  close() {
    this.abort.abort();
    this.source.close();
  }
}

/** @param {string} reason @returns {Part} about a picture that cannot be read */
function notJudged(reason) {
  return { verdict: "none", reason, lost: reason, placement: null, frame: null, etag: null, rois: [], again: false, wait_s: 0 };
}

/** @param {number} before @param {number} now */
function mean(before, now) {
  return before ? before + SHARE * (now - before) : now;
}
