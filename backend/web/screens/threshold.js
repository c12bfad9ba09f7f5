// @ts-check
/** Threshold: the scores of good and bad pictures, the line between them, and what it promises. */
import { call, idsOf, newId, pause } from "../api.js";
import { field, fill, h, icon, keepFocus } from "../dom.js";
import "../histogram.js";
import { hashOf } from "../router.js";
import { ASK_EVERY_MS, findRun, leftOf, watchRun } from "../runs.js";
import { percentUp, score, t } from "../texts.js";
import { Thumbnails } from "../thumbnails.js";

/** @typedef {import("../main.js").App} App */
/** @typedef {import("../api.js").RoiKey} RoiKey */
/** @typedef {{label: "ok" | "ng", filename: string, name: string, score: number, counts: boolean}} Scored */

const NEAREST = 12;
/** As many as the service lists at once. */
const LISTED = 10_000;
/** While the line moves, pictures that are passed are not asked for. */
const AT_REST_MS = 100;

/** @type {import("../main.js").OpenScreen} */
export default function thresholdScreen(app, key) {
  if (!key) throw new Error("no ROI");
  const screen = new ThresholdScreen(app, key);
  return Object.assign(screen, { ready: screen.open() });
}

class ThresholdScreen {
  /** @param {App} app @param {RoiKey} key */
  constructor(app, key) {
    this.app = app;
    this.key = key;
    this.closed = false;
    this.thumbnails = new Thumbnails(key);
    /** @type {Scored[]} */
    this.scored = [];
    /** @type {Scored[]} the lowest score first */
    this.order = [];
    /** @type {{good: Scored[], bad: Scored[]}} those that count */
    this.counted = { good: [], bad: [] };
    /** Stored bad pictures, with a score or without. */
    this.n_bad = 0;
    /** @type {any} the stored calibration; null: none applies */
    this.calibration = null;
    this.busy = false;
    /** @type {Set<string>} unusual pictures of which somebody said that they are good */
    this.kept = new Set();

    this.notices = h("div.notices");
    this.status = h("span.muted", { role: "status" }, t("line.loading"));
    this.bar = h("progress", { hidden: true, "aria-label": t("threshold.progress") });
    this.histogram = /** @type {any} */ (document.createElement("score-histogram"));
    this.histogram.addEventListener("threshold-change", (/** @type {CustomEvent<number>} */ event) => this.show(event.detail));
    this.field = h("input", {
      type: "number", step: "any", id: "threshold-field", inputmode: "decimal",
      oninput: () => {
        if (Number.isFinite(this.field.valueAsNumber)) this.show(this.field.valueAsNumber, true);
      },
    });
    this.sentence = h("p.sentence", { "aria-live": "polite" });
    this.stored = h("div.stored");
    this.save = h("button.primary", { onclick: () => void this.calibrate({ threshold: this.histogram.threshold }) }, t("threshold.save"));
    this.recommend = h("button", { onclick: () => void this.calibrate({ rule: "recommended" }) }, t("threshold.recommend"));
    this.next = h("a.button.primary", { href: hashOf("inspect", key), hidden: true }, t("nav.inspect"), icon("right"));
    this.below = h("div.near");
    this.above = h("div.near");
    this.work = h(
      "div.threshold-work",
      { hidden: true },
      h(
        "div.panel",
        {},
        this.histogram,
        this.sentence,
        h("div.row", {}, field(t("nav.threshold"), this.field), this.save, this.recommend, h("span.spacer"), this.next),
        this.stored,
      ),
      h(
        "div.near-sides",
        {},
        h("div.panel", {}, h("h2", {}, t("threshold.below")), this.below),
        h("div.panel", {}, h("h2", {}, t("threshold.above")), this.above),
      ),
    );
    this.node = h("section.screen", {}, h("header.screen-head", {}, h("h1", {}, t("nav.threshold")), this.status), this.notices, this.bar, this.work);
  }

  async open() {
    await this.app.refresh(this.key.recipe_id);
    if (this.closed) return;
    if (this.app.facts(this.key)?.fitted) {
      const run = await findRun("calibrate_dataset", this.key, null); // asked before: else what it finds may be missed
      await this.load();
      if (run && !this.busy && !this.closed) void this.follow();
      return;
    }
    fill(this.status);
    fill(this.notices, h("div.notice", {}, t("threshold.not_fitted"), h("a.button", { href: hashOf("samples", this.key) }, t("nav.samples"))));
  }

  /** Scoring that goes on since before this screen was opened: what it finds is shown when it ends. */
  async follow() {
    this.bar.hidden = false;
    for (;;) {
      const run = await findRun("calibrate_dataset", this.key, null);
      if (this.closed || this.busy) return;
      if (run === null) break;
      if (run) this.showRun(run);
      await pause(ASK_EVERY_MS);
    }
    this.bar.hidden = true;
    await this.open();
  }

  async load() {
    const known = await this.knownScores();
    if (this.closed) return;
    this.calibration = known.calib ?? null;
    this.n_bad = known.images.filter((/** @type {any} */ image) => image.label === "ng").length;
    this.scored = known.images.filter((/** @type {any} */ image) => image.known).map(scoredOf);
    this.build(known);
  }

  /** @returns {Promise<any>} the reply of `/datasets/scores`, with all images in it */
  async knownScores() {
    const query = { ...idsOf(this.key), limit: LISTED };
    const known = await call("datasets/scores", { query });
    while (known.images.length < known.n_total) {
      const { images } = await call("datasets/scores", { query: { ...query, offset: known.images.length } });
      if (!images.length) break; // some were deleted meanwhile
      known.images.push(...images);
    }
    known.n_unknown = known.images.filter((/** @type {any} */ image) => !image.known).length;
    return known;
  }

  /** @param {any} known the reply of `/datasets/scores` */
  build(known) {
    const counted = this.scored.filter((one) => one.counts);
    const good = counted.filter((one) => one.label === "ok");
    const bad = counted.filter((one) => one.label === "ng");
    this.counted = { good, bad };
    this.order = [...this.scored].sort((a, b) => a.score - b.score);
    this.work.hidden = good.length === 0;
    // Where regions decide, too, the line of the scores is not the whole decision, and is not set here alone.
    const isFixed = !this.app.mayChange || Boolean(this.calibration?.decide_by);
    this.save.hidden = this.field.disabled = isFixed;
    this.recommend.hidden = !this.app.mayChange;
    this.next.hidden = this.calibration === null;
    fill(this.status, t("threshold.counts", { good: good.length, bad: bad.length }));
    this.showNotices(known, good.length);
    this.histogram.disabled = isFixed;
    this.histogram.threshold = this.calibration?.threshold ?? suggested(good, bad);
    this.histogram.scores = { good: good.map((one) => one.score), bad: bad.map((one) => one.score) };
    this.show(this.histogram.threshold);
    this.showStored();
  }

  /** @param {any} known @param {number} n_good */
  showNotices(known, n_good) {
    const notices = [];
    const choose = (/** @type {string} */ text) =>
      this.app.mayChange ? h("button.primary", { disabled: this.busy, onclick: () => void this.calibrate({ rule: "recommended" }) }, text) : null;
    if (this.calibration?.decide_by) notices.push(h("div.notice", {}, t("threshold.by_regions")));
    if (known.calibration === "stale") notices.push(h("div.notice", {}, h("p", {}, t("threshold.stale")), choose(t("threshold.choose"))));
    else if (this.calibration === null) notices.push(h("div.notice", {}, h("p", {}, t("threshold.none")), choose(t("threshold.choose"))));
    else if (known.n_unknown) notices.push(h("div.notice", {}, h("p", {}, t("threshold.unknown", { n: known.n_unknown })), choose(t("threshold.score_them"))));
    if (!n_good) notices.push(h("div.notice", {}, t("threshold.no_scores")));
    const dishonest = this.scored.filter((one) => !one.counts).length;
    if (dishonest) notices.push(h("p.hint", {}, t("threshold.dishonest", { n: dishonest })));
    fill(this.notices, notices);
  }

  /** @param {number} value @param {boolean} [typed] */
  show(value, typed = false) {
    if (typed) this.histogram.threshold = value;
    else this.field.value = String(Number(value.toFixed(6)));
    const { good, bad } = this.counted;
    const rejected = good.filter((one) => one.score >= value).length;
    const escaped = bad.filter((one) => one.score < value).length;
    const parts = [t("threshold.rejected", { threshold: score(value), count: rejected, n: good.length })];
    if (bad.length) parts.push(t("threshold.escaped", { count: escaped, n: bad.length }));
    else parts.push(this.n_bad ? t("threshold.bad_unscored", { n: this.n_bad }) : t("threshold.no_bad"));
    fill(this.sentence, parts.join(" "));
    this.histogram.tell(parts.join(" "));
    const isStored = this.calibration !== null && Math.abs(this.calibration.threshold - value) < 5e-7;
    this.save.disabled = this.busy || isStored;
    this.save.classList.toggle("primary", !isStored);
    clearTimeout(this.resting);
    this.resting = setTimeout(() => this.showNearest(value), AT_REST_MS);
  }

  /** @param {number} value */
  showNearest(value) {
    const { order } = this;
    const at = order.findIndex((one) => one.score >= value);
    const split = at < 0 ? order.length : at;
    this.fillSide(this.below, order.slice(Math.max(0, split - NEAREST), split).reverse());
    this.fillSide(this.above, order.slice(split, split + NEAREST));
  }

  /** @param {any} side @param {Scored[]} pictures the nearest first */
  fillSide(side, pictures) {
    const names = pictures.map((one) => one.filename).join();
    if (side.dataset.names === names) return; // most drags change nothing here
    side.dataset.names = names;
    fill(
      side,
      pictures.map((one) =>
        h(
          `figure.near-one.${one.label}`,
          {},
          this.thumbnails.picture(one.label, one.filename),
          h(
            "figcaption",
            {},
            one.label === "ok" ? h("span.badge.good", {}, t("samples.good")) : h("span.badge.bad", {}, t("samples.bad")),
            h("span.num", {}, score(one.score)),
            h("span.muted.near-name", { title: one.name }, one.name),
          ),
        ),
      ),
      pictures.length ? null : h("p.muted", {}, t("threshold.none_here")),
    );
  }

  showStored() {
    const { calibration } = this;
    if (!calibration) {
      fill(this.stored);
      return;
    }
    // Each picture that stands out has a row of its own, which says it by the name that people know.
    const unusual = this.app.mayChange ? this.unusual() : [];
    const rule = calibration.rule === "manual" ? "manual" : calibration.rule === "recommended" ? "recommended" : "other";
    keepFocus(this.node, () => fill(
      this.stored,
      h("p", {}, h("strong", {}, t("threshold.stored", { threshold: score(calibration.threshold) })), " ", t(`threshold.rule.${rule}`)),
      calibration.promise ? h("p", {}, promiseOf(calibration.promise)) : null,
      calibration.why ? h("p.muted", {}, t("threshold.why", { why: this.reason(unusual.length > 0) })) : null,
      unusual.map((one) => this.unusualRow(one, unusual.length)),
    ));
  }

  /** The service's reason, with the names that people know. @param {boolean} named what stands out is told apart from it */
  reason(named) {
    let parts = this.calibration.why.split("; ");
    if (named) parts = parts.filter((/** @type {string} */ part) => !/ stands? out and | in keep, /.test(part));
    return this.scored.reduce((text, one) => text.replaceAll(one.filename, one.name), parts.join("; "));
  }

  /** Good pictures that the rule left out; their positions are those of the list of stored images. @returns {Scored[]} */
  unusual() {
    const { unusual, n_ok } = this.calibration;
    const good = this.scored.filter((one) => one.label === "ok");
    return good.length === n_ok ? (unusual ?? []).map((/** @type {number} */ position) => good[position]) : [];
  }

  /** @param {Scored} one @param {number} n how many stand out */
  unusualRow(one, n) {
    const values = { n, name: one.name, score: score(one.score), with_it: score(this.calibration.threshold_with_unusual) };
    return h(
      "div.notice",
      {},
      h("div.unusual-picture", {}, this.thumbnails.picture("ok", one.filename)),
      h("p", {}, t(n > 1 ? "threshold.unusual_all" : "threshold.unusual", values)),
      h("button", { onclick: () => void this.keep(one) }, t("threshold.keep")),
      h("button", { onclick: () => void this.move(one) }, t("threshold.not_good")),
    );
  }

  /** It is good, unusual or not. @param {Scored} one */
  async keep({ filename }) {
    this.kept.add(filename);
    await this.calibrate({ rule: "recommended", keep: [...this.kept] });
  }

  /** @param {Scored} one */
  async move({ filename, name }) {
    await call("datasets/move", { json: { ...idsOf(this.key), label: "ok", filename, to: "ng" } });
    this.app.say("warning", t("threshold.moved", { name }));
    await this.open();
  }

  /** @param {{rule: "recommended", keep?: string[]} | {threshold: number}} choice */
  async calibrate(choice) {
    if (this.busy) return;
    this.busy = true;
    keepFocus(this.node, () => {
      for (const button of [this.save, this.recommend, ...this.notices.querySelectorAll("button")]) button.disabled = true;
    });
    this.bar.hidden = false;
    this.bar.removeAttribute("value");
    const id = newId();
    const scale = this.app.facts(this.key)?.mm_per_px ?? undefined;
    try {
      const calibrating = call("calibrate_dataset", {
        json: { ...idsOf(this.key), ...choice, decide_by: this.calibration?.decide_by, require_ng: false, default_mm_per_px: scale },
        headers: { "X-Request-Id": id },
      });
      void watchRun("calibrate_dataset", this.key, id, (run) => this.showRun(run), () => this.busy && !this.closed);
      const reply = await calibrating;
      if (reply.warning) this.app.say("warning", reply.warning);
      if (reply.n_errors) this.app.say("error", t("threshold.failed", { n: reply.n_errors, reason: reply.errors[0].error }));
      this.app.say("done", t("threshold.saved", { threshold: score(reply.threshold) }));
    } finally {
      this.busy = false;
      this.bar.hidden = true;
      this.recommend.disabled = false;
      if (!this.closed) await this.open();
    }
  }

  /** @param {import("../runs.js").Run} run */
  showRun(run) {
    this.bar.max = run.total || 1;
    this.bar.value = run.done;
    fill(this.status, `${t("threshold.scoring", { done: run.done, total: run.total })} ${leftOf(run)}`);
  }

  close() {
    this.closed = true;
    clearTimeout(this.resting);
    this.thumbnails.close();
  }
}

/** @param {any} promise of a calibration @returns {string} */
function promiseOf({ confidence, false_reject_rate_at_most, escape_rate_at_most, n_ok_missing }) {
  const parts = [
    false_reject_rate_at_most === undefined ? t("threshold.promise_none") : t("threshold.promise_good", { percent: percentUp(false_reject_rate_at_most) }),
  ];
  if (escape_rate_at_most !== undefined) parts.push(t("threshold.promise_bad", { percent: percentUp(escape_rate_at_most) }));
  const more = n_ok_missing ? ` ${t("threshold.promise_more", { n: n_ok_missing })}` : "";
  return `${t("threshold.promise", { confidence: Math.round(100 * confidence) })} ${parts.join(", ")}.${more}`;
}

/** @param {any} image @returns {Scored} */
function scoredOf(image) {
  // A good picture counts where the bank that scored it has not seen it: else it scores too low, and promises too much.
  const counts = image.label === "ng" || image.honest === true;
  return { label: image.label, filename: image.filename, name: image.uploaded_as ?? image.filename, score: image.score, counts };
}

/**
 * Where the line begins before there is a threshold: just above the good ones.
 * @param {Scored[]} good
 * @param {Scored[]} bad
 */
function suggested(good, bad) {
  const scores = (good.length ? good : bad).map((one) => one.score);
  return scores.length ? Math.max(...scores) * 1.02 : 0;
}
