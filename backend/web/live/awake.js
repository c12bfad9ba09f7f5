// @ts-check
/** Keeps the screen of a line on, where the browser can. */

export class Awake {
  /** @param {() => void} onChange */
  constructor(onChange) {
    this.onChange = onChange;
    this.wanted = false;
    /** @type {WakeLockSentinel | null} */
    this.lock = null;
    /** Whether the browser refused, or has no such thing. */
    this.refused = false;
    document.addEventListener("visibilitychange", this.seen);
  }

  /** A lock ends when its page is hidden. */
  seen = () => {
    if (document.visibilityState === "visible" && this.wanted) void this.ask();
  };

  async ask() {
    this.wanted = true;
    try {
      this.lock = (await navigator.wakeLock?.request("screen")) ?? null;
      this.refused = this.lock === null;
    } catch {
      this.refused = true; // a low battery, or a policy: the page says that the screen may go dark
    }
    if (!this.wanted) this.release();
    this.onChange();
  }

  release() {
    this.wanted = false;
    this.refused = false;
    void this.lock?.release();
    this.lock = null;
  }

  close() {
    this.release();
    document.removeEventListener("visibilitychange", this.seen);
  }
}
