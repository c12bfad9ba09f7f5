// @ts-check
/** Where pictures come from, one after the other: what the loop knows of a camera, a folder, and a folder that plays a camera. */

/**
 * @typedef {object} Frame a picture that waits for its verdict
 * @property {string} name of the file
 * @property {string} [label] shorter than its name, for people
 * @property {string} [id] by which the service knows it again; without one the loop gives it one
 * @property {Blob} blob a file, as it is judged
 */
/**
 * @typedef {object} Source
 * @property {"camera" | "folder"} kind camera: the newest frame wins, older ones are passed over; folder: each file is given, in order
 * @property {string} name for people
 * @property {number} backlog files that wait; of a camera 0
 * @property {number} dropped frames that were passed over; of a folder 0
 * @property {string | null} problem why nothing comes
 * @property {(signal: AbortSignal) => Promise<Frame | null>} next wait for the next one; null: there is no more
 * @property {(frame: Frame) => Promise<void>} done it has its verdict, or never gets one: it is not given again
 * @property {() => void} [hold] what came while nothing was judged is not counted as passed over
 * @property {() => Promise<void>} [skip] pass over all that waits, for good
 * @property {() => void} close
 */

/**
 * Wait until something is told, or the signal ends it.
 */
export class Bell {
  constructor() {
    /** @type {Set<() => void>} */
    this.waiting = new Set();
  }

  /**
   * @param {AbortSignal} signal
   * @param {number} [most_ms] at the longest
   * @returns {Promise<void>}
   */
  wait(signal, most_ms) {
    return new Promise((resolve, reject) => {
      if (signal.aborted) {
        reject(signal.reason);
        return;
      }
      const end = () => {
        this.waiting.delete(go);
        clearTimeout(timer);
        reject(signal.reason);
      };
      const go = () => {
        this.waiting.delete(go);
        clearTimeout(timer);
        signal.removeEventListener("abort", end);
        resolve();
      };
      const timer = most_ms === undefined ? undefined : setTimeout(go, most_ms);
      this.waiting.add(go);
      signal.addEventListener("abort", end, { once: true });
    });
  }

  ring() {
    for (const go of [...this.waiting]) go();
  }
}

/** Whether files are in the order of their names, numbers by their value. @param {string} a @param {string} b */
export function byName(a, b) {
  return a.localeCompare(b, [], { numeric: true });
}
