// @ts-check
/** Health: whether the parts still look as they did, and the models that were before, to serve one of them again. */
import { call, idsOf } from "../api.js";
import { fill, h, icon, keepFocus } from "../dom.js";
import { hashOf } from "../router.js";
import { moment, score, t } from "../texts.js";

/** @typedef {import("../main.js").App} App */
/** @typedef {import("../api.js").RoiKey} RoiKey */

const ASK_EVERY_MS = 5000;
const CHANGES = /** @type {const} */ (["fit", "append", "calibrate", "rollback"]);
const DIRECTIONS = /** @type {const} */ (["higher", "lower", "rejects"]);
const VERDICTS = /** @type {const} */ (["ok", "collecting", "drift", "none"]);

/** @type {import("../main.js").OpenScreen} */
export default function healthScreen(app, key) {
  if (!key) throw new Error("no ROI");
  const screen = new HealthScreen(app, key);
  return Object.assign(screen, { ready: screen.load() });
}

class HealthScreen {
  /** @param {App} app @param {RoiKey} key */
  constructor(app, key) {
    this.app = app;
    this.key = key;
    this.closed = false;
    this.notices = h("div.notices");
    this.drift = h("div.panel");
    this.models = h("ol.timeline");
    this.note = h("p.muted", { role: "status" }, t("line.loading"));
    this.node = h(
      "section.screen",
      {},
      h("header.screen-head", {}, h("h1", {}, t("nav.health")), this.note),
      this.notices,
      this.drift,
      h("div.panel", {}, h("h2", {}, t("health.models")), h("p.hint", {}, t("health.models_hint")), this.models),
    );
    this.timer = setInterval(() => {
      if (app.heartbeat.state.value.status === "ok") void this.loadDrift();
    }, ASK_EVERY_MS);
  }

  async load() {
    await Promise.all([this.loadDrift(), this.loadModels(), this.app.refresh(this.key.recipe_id)]);
    fill(this.note);
  }

  async loadDrift() {
    const found = await call("drift", { query: idsOf(this.key), quiet: true });
    if (!this.closed) this.showDrift(found);
  }

  /** @param {any} found reply of `/drift` */
  showDrift(found) {
    const text = JSON.stringify(found.request_id ? { ...found, request_id: "" } : found);
    if (this.drift.dataset.shown === text) return;
    this.drift.dataset.shown = text;
    const verdict = VERDICTS.find((name) => name === found.verdict) ?? "none";
    const kind = verdict === "ok" ? "good" : verdict === "drift" ? "bad" : "plain";
    const shape = verdict === "ok" ? "check" : verdict === "drift" ? "cross" : "health";
    keepFocus(this.drift, () => fill(
      this.drift,
      h("div.panel-head", {}, h("h2", {}, t("health.drift")), h(`span.badge.${kind}`, {}, icon(shape), t(`health.verdict.${verdict}`))),
      found.direction ? h("p", {}, t(`health.${DIRECTIONS.find((name) => name === found.direction) ?? "rejects"}`)) : null,
      verdict === "collecting" ? h("p", {}, t("health.collecting")) : null,
      found.since_utc ? h("p", {}, t("health.since", { when: moment(found.since_utc), part: found.since_part })) : null,
      h("p.muted", {}, t("health.parts", { n: found.n_parts, rejected: found.n_rejected ?? 0 })),
      found.reference ? summary(found.reference, found.recent) : null,
      verdict === "drift" && this.app.mayChange ? this.resets() : null,
    ));
  }

  resets() {
    return h(
      "div.row",
      {},
      h("button", { onclick: () => void this.reset({}) }, t("health.mended")),
      h("button", { onclick: () => void this.reset({ reference: "production" }) }, t("health.accepted")),
    );
  }

  /** @param {object} how */
  async reset(how) {
    this.showDrift(await call("drift/reset", { json: { ...idsOf(this.key), ...how } }));
    await this.app.refresh(this.key.recipe_id);
  }

  async loadModels() {
    const [{ versions }, state, manifest] = await Promise.all(["versions", "state", "manifest"].map((path) => call(path, { query: idsOf(this.key) })));
    if (this.closed) return;
    this.showFitted(state.memory_fitted);
    const now = state.memory_fitted
      ? h(
          "li.version.now",
          {},
          h("p", {}, h("strong", {}, t("health.now"))),
          h("p", {}, manifest.calib ? t("health.threshold", { threshold: score(manifest.calib.threshold) }) : t(state.calibration === "stale" ? "health.stale" : "health.no_threshold")),
          h("p.muted.num", {}, t("health.memory", { id: (state.model.memory_id ?? "").slice(0, 8) }), state.model.detail ? `, ${t("card.detail", { detail: state.model.detail })}` : null),
        )
      : h("li.version.now", {}, h("p", {}, t("health.not_fitted")));
    keepFocus(this.models, () => fill(this.models, now, versions.map((/** @type {any} */ version) => this.version(version))));
    if (!versions.length) this.models.append(h("li.version", {}, h("p.muted", {}, t("health.no_versions"))));
  }

  /** Nothing is watched before the first fit. @param {boolean} fitted */
  showFitted(fitted) {
    this.drift.hidden = !fitted;
    fill(this.notices, fitted ? null : h("div.notice", {}, h("p", {}, t("health.unfitted")), h("a.button", { href: hashOf("samples", this.key) }, t("nav.samples"), icon("right"))));
  }

  /** @param {any} version of `/versions` */
  version(version) {
    const change = CHANGES.find((name) => name === version.replaced_by);
    const back = h("button", { onclick: () => this.confirm(version, back) }, icon("undo"), t("health.back"));
    return h(
      "li.version",
      { "data-version": version.version },
      h("p", {}, h("strong", {}, t("health.version", { n: version.version })), " ", t("health.until", { when: moment(version.kept_at_utc), change: change ? t(`health.change.${change}`) : version.replaced_by })),
      h("p", {}, version.calibrated ? t("health.threshold", { threshold: score(version.threshold) }) : t("health.no_threshold")),
      h("p.muted.num", {}, t("health.facts", { n: version.n_images ?? "?", id: version.memory_id.slice(0, 8) })),
      this.app.mayChange ? h("div.row", {}, back) : null,
    );
  }

  /** Ask once: what is served changes for every station. @param {any} version @param {any} button */
  confirm(version, button) {
    const row = button.parentElement;
    const no = h("button", { onclick: () => { fill(row, button); button.focus(); } }, t("cancel"));
    fill(row, h("p", {}, t("health.confirm", { n: version.version })), h("button.primary", { onclick: () => void this.rollBack(version.version) }, t("health.confirm_yes")), no);
    no.focus();
  }

  /** @param {number} version */
  async rollBack(version) {
    const reply = await call("rollback", { json: { ...idsOf(this.key), version } });
    this.app.say(reply.calibration === "applied" ? "done" : "warning", t(reply.calibration === "applied" ? "health.rolled_back" : "health.rolled_back_uncalibrated", { n: version }));
    await this.app.refresh(this.key.recipe_id);
    await this.load();
  }

  close() {
    this.closed = true;
    clearInterval(this.timer);
  }
}

/** @param {any} reference @param {any} recent */
function summary(reference, recent) {
  const row = (/** @type {string} */ name, /** @type {any} */ one) =>
    h("tr", {}, h("th", { scope: "row" }, name), h("td.num", {}, one.n), [one.p5, one.p50, one.p95].map((value) => h("td.num", {}, score(value))));
  return h("div.scrolls", {}, h(
    "table",
    {},
    h("thead", {}, h("tr", {}, [t("health.column.scores"), t("health.column.n"), "5 %", "50 %", "95 %"].map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, row(t("health.reference"), reference), recent ? row(t("health.recent"), recent) : null),
  ));
}
