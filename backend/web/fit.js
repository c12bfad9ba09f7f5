// @ts-check
/** The fit of a ROI on its stored good images: how far it is, how long it still takes, and how to give it up. */
import { ApiError, call, formOf, idsOf, newId, pause } from "./api.js";
import { fill, h, icon, keepFocus } from "./dom.js";
import { forgetText, keepText, keptText } from "./keep.js";
import { LEAST_GOOD } from "./rois.js";
import { hashOf, roiText } from "./router.js";
import { ASK_EVERY_MS, findRun, leftOf, watchRun } from "./runs.js";
import { messageOf, t } from "./texts.js";

/** @typedef {import("./main.js").App} App */
/** @typedef {import("./api.js").RoiKey} RoiKey */
/** @typedef {{before: string, seen: boolean}} Asked before: what `state` was; seen: the service has listed the fit */

/** A run that is not listed by then is over, or was never begun. */
const LISTED_WITHIN_MS = 20000;
const STEPS = /** @type {const} */ (["wait", "extract", "coreset", "score"]);

export class FitPanel {
  /**
   * @param {App} app
   * @param {RoiKey} key
   * @param {{count: () => number, pending: () => number, size: () => import("./detail.js").Size | null, onFitted: () => void}} samples good ones, those not yet stored, and the size of the ROI
   */
  constructor(app, key, samples) {
    this.app = app;
    this.key = key;
    this.samples = samples;
    /** @type {AbortController | null} a fit that was asked for here */
    this.running = null;
    /** @type {string | undefined} the id of the run, once the service lists it */
    this.runId = undefined;
    this.watching = false;
    this.closed = false;
    this.askedKey = `fit of ${roiText(key)}`;
    /** What became of a fit that brought no model. */
    this.lost = "";
    /** Why the last fit has its detail, as the service said. */
    this.reason = h("p.hint", { hidden: true });
    /** @type {import("./detail.js").DetailChoice | null} null: there is nothing to choose, or its size is not known here */
    this.detail = null;
    this.text = h("p", { role: "status" });
    this.bar = h("progress", { hidden: true, "aria-label": t("fit.progress") });
    this.button = h("button.primary", { hidden: true, onclick: () => void this.fit() }, "");
    this.cancel = h("button", { hidden: true, onclick: () => void this.giveUp() }, t("cancel"));
    this.next = h("a.button.primary", { hidden: true, href: hashOf("threshold", key) }, t(app.mayChange ? "card.next.threshold" : "nav.threshold"), icon("right"));
    this.node = h("div.panel.fit", { hidden: true }, h("div.fit-text", {}, this.text, this.reason, this.bar), h("div.row", {}, this.cancel, this.button, this.next));
  }

  /**
   * A fit may be under way since before this page was loaded; the service lists it only once it has looked at its pictures.
   * @param {boolean} [away] the service did not answer
   */
  async open(away = false) {
    const begun = performance.now();
    let seen = false;
    while (!this.closed && !this.running) {
      const asked = this.asked();
      const run = await findRun("fit", this.key, null);
      const now = run === null && asked ? await this.state().catch(unanswered) : undefined;
      if (this.closed || this.running) return;
      this.watching = Boolean(run ?? asked);
      seen ||= Boolean(run ?? asked?.seen);
      if (run) this.show(run);
      else if (run === null && !asked) break;
      else if (asked && now) {
        const isOver = now !== asked.before;
        if (isOver || seen || performance.now() - begun > LISTED_WITHIN_MS) {
          forgetText(this.askedKey);
          if (!isOver) this.lost = [t(away ? "fit.lost" : "fit.ended"), t(this.app.facts(this.key)?.fitted ? "fit.before" : "fit.no_model"), t("fit.start_again")].join(" ");
          break;
        }
        this.showWaiting();
      } else if (asked || away) {
        away = true;
        this.showWaiting("fit.away");
      }
      await pause(ASK_EVERY_MS);
    }
    const wasWatching = this.watching;
    this.watching = false;
    await this.app.refresh(this.key.recipe_id);
    if (wasWatching && !this.closed) this.samples.onFitted();
    this.update();
  }

  /** A fit that was asked for in this browser and did not answer yet. @returns {Asked | null} */
  asked() {
    return JSON.parse(keptText(this.askedKey) ?? "null");
  }

  /** @param {Asked} asked */
  remember(asked) {
    keepText(this.askedKey, JSON.stringify(asked));
  }

  /** What changes with every fit that ends well, also with one that finds the same again. @throws {ApiError} */
  async state() {
    const [{ versions }] = await Promise.all([call("versions", { query: idsOf(this.key) }), this.app.refresh(this.key.recipe_id)]);
    return `${this.app.facts(this.key)?.memory_id} ${versions[0]?.kept_at_utc}`;
  }

  update() {
    if (this.running || this.watching) return;
    const good = this.samples.count();
    const pending = this.samples.pending();
    const least = this.app.session.value.limits.min_ok_samples ?? LEAST_GOOD;
    const facts = this.app.facts(this.key);
    void this.showDetail();
    keepFocus(this.node, () => {
      this.node.hidden = false;
      this.bar.hidden = this.cancel.hidden = true;
      this.button.hidden = !this.app.mayChange;
      this.button.disabled = good < least || pending > 0;
      this.next.hidden = !facts?.fitted;
    });
    this.button.classList.toggle("primary", Boolean(this.lost) || !facts?.fitted);
    this.text.classList.toggle("notice", Boolean(this.lost));
    fill(this.button, t(facts?.fitted ? "fit.again" : "fit.fit", { n: good }));
    fill(this.text, this.told(good, least, pending, facts));
  }

  /** The model's detail; null: there is no model. */
  get fitted() {
    const facts = this.app.facts(this.key);
    return facts && (facts.fitted || facts.detail > 1) ? facts.detail : null;
  }

  /** Most ROIs are small, so the choice is loaded for large ones. */
  async showDetail() {
    const { network } = this.app.session.value;
    const size = this.app.mayChange ? this.samples.size() : null;
    const isLarge = size !== null && Math.max(size.width, size.height) > network.input_size;
    if (!this.detail && size && (isLarge || (this.fitted ?? 1) > 1)) {
      const { DetailChoice } = await import("./detail.js");
      this.detail ??= new DetailChoice(this.key);
      this.node.append(this.detail.node);
    }
    if (!this.detail) return;
    this.detail.show(size, { mm_per_px: this.scale, fitted: this.fitted, network });
    if (this.running || this.watching) this.detail.node.hidden = true; // the fit has begun with what was chosen
  }

  /** Millimetres per pixel; 1 where nobody measured. */
  get scale() {
    return this.app.facts(this.key)?.mm_per_px ?? 1;
  }

  /** @param {number} good @param {number} least @param {number} pending @param {import("./rois.js").RoiFacts | null} facts */
  told(good, least, pending, facts) {
    if (this.lost) return this.lost;
    if (facts?.fitted && facts.calibration !== "applied") return t("fit.fitted");
    if (facts?.fitted) return t(this.app.mayChange ? "fit.fitted_calibrated" : "fit.fitted_look");
    if (pending) return t("fit.wait_for_storing");
    return good < least ? t("fit.too_few", { n: least - good, least }) : t("fit.ready", { n: good });
  }

  async fit() {
    const id = newId();
    const running = new AbortController();
    this.running = running;
    this.runId = undefined;
    this.lost = "";
    this.reason.hidden = true;
    this.showWaiting();
    this.cancel.hidden = false;
    try {
      await this.showDetail();
      this.remember({ before: await this.state(), seen: false }); // without it a lost fit could not be told, so none is begun
      const form = formOf(this.key, { mm_per_px: this.scale, use_dataset: true, profile: "recommended", ...(this.detail?.fields ?? { detail: this.fitted ?? undefined }) });
      const fitting = call("fit_ok", { form, headers: { "X-Request-Id": id }, signal: running.signal });
      void watchRun("fit", this.key, id, (run) => this.show(run), () => !this.closed && this.running !== null);
      const reply = await fitting;
      this.detail?.done();
      this.reason.hidden = !reply.detail_reason;
      fill(this.reason, reply.detail_reason);
      this.app.say("done", t("fit.done", { n: this.samples.count() }));
      if (reply.warning) this.app.say("warning", reply.warning);
    } catch (problem) {
      if (problem instanceof ApiError && problem.status === 0 && !running.signal.aborted) {
        // The line broke, or the page is being left: the fit goes on all the same.
        this.running = null;
        if (!this.asked()) this.app.say("error", messageOf(problem)); // it was not begun
        if (!this.closed) void this.open(true);
        return;
      }
      if (running.signal.aborted) this.app.say("warning", t("fit.cancelled"));
      else if (problem instanceof ApiError && problem.code === "run_cancelled") this.app.say("done", t("fit.stopped"));
      else this.app.say("error", messageOf(problem));
    }
    this.running = null;
    forgetText(this.askedKey);
    if (this.closed) return;
    await this.app.refresh(this.key.recipe_id);
    this.samples.onFitted();
    this.update();
  }

  /** Where the service does not list the fit yet, there is only the request to give up. */
  async giveUp() {
    if (!this.runId) return this.running?.abort();
    try {
      await call("runs/cancel", { json: { run_id: this.runId } });
    } catch (problem) {
      this.app.say("error", messageOf(problem));
    }
  }

  showRunning() {
    this.node.hidden = false;
    keepFocus(this.node, () => {
      this.button.hidden = this.next.hidden = true;
      if (this.detail) this.detail.node.hidden = true;
    });
    this.bar.hidden = false;
    this.text.classList.remove("notice");
  }

  /** @param {"fit.step.wait" | "fit.away"} [text] */
  showWaiting(text = "fit.step.wait") {
    this.showRunning();
    this.cancel.hidden ||= text === "fit.away";
    this.bar.removeAttribute("value");
    fill(this.text, t(text));
  }

  /** @param {import("./runs.js").Run} run */
  show(run) {
    this.runId = run.run_id;
    const asked = this.asked();
    if (asked && !asked.seen) this.remember({ ...asked, seen: true });
    this.cancel.hidden = !this.app.mayChange || !(this.runId || this.running);
    this.showRunning();
    this.bar.max = run.total || 1;
    if (run.step === "wait") this.bar.removeAttribute("value");
    else this.bar.value = run.done;
    const step = STEPS.find((name) => name === run.step) ?? "wait";
    fill(this.text, `${t(`fit.step.${step}`, { done: run.done, total: run.total })} ${leftOf(run)}`);
  }

  close() {
    this.closed = true; // a fit goes on without anybody watching
  }
}

/** @param {unknown} problem */
function unanswered(problem) {
  if (!(problem instanceof ApiError)) throw problem;
}
