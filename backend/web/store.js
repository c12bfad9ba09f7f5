// @ts-check
/** A value that tells those who look at it when it changes. */

/** @template T */
export class Store {
  /** @param {T} value */
  constructor(value) {
    this.value = value;
    /** @type {Set<(value: T) => void>} */
    this.listeners = new Set();
  }

  /** @param {Partial<T>} change */
  set(change) {
    const before = this.value;
    const names = /** @type {(keyof T)[]} */ (Object.keys(change));
    if (names.every((name) => before[name] === change[name])) return;
    this.value = { ...before, ...change };
    for (const listener of [...this.listeners]) listener(this.value);
  }

  /**
   * Call now and after every change.
   * @param {(value: T) => void} listener
   * @returns {() => void} ends it
   */
  watch(listener) {
    this.listeners.add(listener);
    listener(this.value);
    return () => this.listeners.delete(listener);
  }
}
