// @ts-check
/** Whether the service answers: asked every few seconds, and every second while somebody relies on it. */
import { call } from "./api.js";
import { fill, h } from "./dom.js";
import { Store } from "./store.js";
import { t } from "./texts.js";

const CALM_MS = 4000;
const ALERT_MS = 700;
/** An answer that takes longer is none: a verdict must not outlive the service by two seconds. */
const PATIENCE_MS = 900;

/** @typedef {"asking" | "ok" | "starting" | "failed" | "draining" | "away"} ServiceStatus */
/** @typedef {{status: ServiceStatus, health: any}} Pulse */

export class Heartbeat {
  constructor() {
    this.state = new Store(/** @type {Pulse} */ ({ status: "asking", health: null }));
    /** How many rely on it now. */
    this.alert = 0;
    this.beating = false;
  }

  start() {
    if (this.beating) return;
    this.beating = true;
    void this.beat();
  }

  /** Beat every second. @returns {() => void} ends it */
  rely() {
    this.alert++;
    this.wake?.();
    return () => {
      this.alert--;
    };
  }

  async beat() {
    while (this.beating) {
      const begun = performance.now();
      await this.ask();
      const every_ms = this.alert ? ALERT_MS : CALM_MS;
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, Math.max(100, every_ms - (performance.now() - begun)));
        this.wake = () => {
          clearTimeout(timer);
          resolve(null);
        };
      });
    }
  }

  async ask() {
    try {
      const health = await call("health", { quiet: true, timeoutMs: this.alert ? PATIENCE_MS : CALM_MS });
      this.state.set({ status: health.status, health });
    } catch {
      this.state.set({ status: "away", health: null }); // whatever kept it from answering, it did not answer
    }
  }
}

/**
 * The lamp of the bar: a shape, a word and a colour for each state.
 * @param {Heartbeat} heartbeat
 */
export function lamp(heartbeat) {
  const word = h("span");
  const node = h("span.lamp", { role: "status" }, h("span.lamp-light", { "aria-hidden": "true" }), word);
  heartbeat.state.watch(({ status, health }) => {
    node.dataset.status = status;
    node.title = health ? t("lamp.title", { version: health.version, device: health.device }) : t("lamp.away_title");
    fill(word, t(`lamp.${status}`));
  });
  return node;
}
