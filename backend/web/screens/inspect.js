// @ts-check
/** Inspect: pictures in, verdicts out, one after the other; and why. */
import { ApiError } from "../api.js";
import { Crops } from "../crops.js";
import { fill, h, icon } from "../dom.js";
import { ExplainPanel } from "../explain.js";
import { FeedbackPanel } from "../feedback.js";
import { fittedOn, Guard } from "../guard.js";
import { HeatView, unitOf } from "../heat.js";
import { dropZone } from "../ingest.js";
import { keepJudged } from "../judged.js";
import { screenKeys } from "../keys.js";
import { selfTest } from "../pixels/picture.js";
import { PictureSet } from "../pictures.js";
import { judge, questionAbout, sentOf } from "../question.js";
import { messageOf, score, t } from "../texts.js";
import { verdictOf, verdictPanel, wayFrom } from "../verdict.js";
import { PartList } from "./inspect-parts.js";

/** @typedef {import("../main.js").App} App */
/** @typedef {import("../api.js").RoiKey} RoiKey */
/** @typedef {import("../keep.js").KeptPicture} KeptPicture */
/** @typedef {import("./inspect-parts.js").Part} Part */

const SHELF = " inspect";
const RETRY_MS = 1000;

/** @type {import("../main.js").OpenScreen} */
export default function inspectScreen(app, key) {
  if (!key) throw new Error("no ROI");
  const screen = new InspectScreen(app, key);
  void screen.open();
  return screen;
}

class InspectScreen {
  /** @param {App} app @param {RoiKey} key */
  constructor(app, key) {
    this.app = app;
    this.key = key;
    this.set = new PictureSet(key, SHELF);
    this.crops = new Crops(this.set, key);
    this.guard = new Guard(key, () => this.update());
    this.unrely = app.heartbeat.rely();
    this.abort = new AbortController();
    this.parts = new PartList((part) => this.choose(part), (part) => this.wordOf(part));
    /** @type {Part | null} on the screen */
    this.current = null;
    /** @type {Part | null} in flight: one at a time */
    this.judging = null;
    this.paused = false;
    /** @type {string | null} why nothing is judged here */
    this.blocked = t("verdict.opening");
    /** @type {string | null} the model whose fit was compared with the ROI */
    this.comparedWith = null;
    this.moved = false;
    this.placeUnknown = false;
    /** @type {(value: null) => void} */
    this.isOpen = () => undefined;
    this.opened = new Promise((resolve) => {
      this.isOpen = resolve;
    });

    this.verdict = verdictPanel();
    this.view = new HeatView((x, y) => void this.explain.ask(x, y));
    this.explain = new ExplainPanel(app, this.view, () => this.question());
    this.feedback = new FeedbackPanel(app, () => this.question(), () => this.guard.ask());
    this.name = h("p.inspect-name", { "aria-live": "off" });
    this.pause = h("button", { onclick: () => this.setPaused(!this.paused), "aria-keyshortcuts": "P" });
    this.heat = h("input", { type: "checkbox", id: "heat", checked: true, "aria-keyshortcuts": "H", onchange: () => { this.view.visible = this.heat.checked; } });
    this.counts = h("input", { type: "checkbox", id: "counts" });
    this.clear = h("button", { onclick: () => void this.forget() }, icon("trash"), t("inspect.clear"));
    this.drop = dropZone((found) => void this.add(found), { text: t("inspect.drop"), compact: true });
    this.notices = h("div.notices");
    this.way = h("div.row", { hidden: true });
    this.node = h(
      "section.screen",
      {},
      h("h1.sr", {}, t("nav.inspect")),
      this.notices,
      h("div.inspect-stage", {}, this.verdict.node, h("div.inspect-picture", {}, this.view.node, this.name)),
      this.way,
      h(
        "div.row.middle",
        {},
        h("button", { onclick: () => this.step(-1), "aria-label": t("inspect.previous") }, icon("left")),
        h("button", { onclick: () => this.step(1), "aria-label": t("inspect.following") }, icon("right")),
        this.pause,
        this.explain.button,
        this.feedback.buttons,
        h("label.inline", { for: "heat" }, this.heat, t("inspect.heat")),
        h("label.inline", { for: "counts", title: t("inspect.counts_hint") }, this.counts, t("inspect.counts")),
        h("button", { onclick: () => void document.documentElement.requestFullscreen() }, t("inspect.full")),
      ),
      this.feedback.node,
      this.explain.node,
      h("div.row.middle", {}, this.parts.tally, h("span.spacer"), this.clear),
      this.parts.node,
      this.drop,
      h("p.hint", {}, t("inspect.keys")),
    );
    this.endKeys = screenKeys({
      ArrowLeft: () => this.step(-1),
      ArrowRight: () => this.step(1),
      p: () => this.setPaused(!this.paused),
      w: () => void this.explain.ask(),
      h: () => this.heat.click(),
    });
  }

  async open() {
    this.guard.start();
    this.setPaused(false);
    this.update();
    const opening = Promise.all([selfTest(), this.loadDrawn(), this.app.refresh(this.key.recipe_id), this.set.load()]);
    opening.catch((problem) => { this.blocked = messageOf(problem); this.update(); });
    const [test] = await opening;
    if (this.abort.signal.aborted) return;
    this.blocked = test.ok ? null : t("roi.self_test", { reason: test.reason ?? "" });
    for (const kept of this.set.list) this.parts.add(kept);
    this.current = this.parts.list[0] ?? null;
    this.isOpen(null);
    this.update();
    void this.work();
  }

  /** Judge what is waiting, one after the other, for as long as the screen is open. */
  async work() {
    while (!this.abort.signal.aborted) {
      const next = this.nextPart();
      if (!next || this.guard.doubt() || this.blocked || !(await this.isSamePlace())) {
        await this.rest(RETRY_MS);
        continue;
      }
      if (!this.paused) this.current = next;
      await this.judge(next);
    }
  }

  /** @param {number} ms or until something changes */
  rest(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.wake = () => {
        clearTimeout(timer);
        resolve(null);
      };
    });
  }

  /** What is on the screen first, if it has no verdict that holds. @param {Part} [judging] is not it @returns {Part | undefined} */
  nextPart(judging) {
    const waits = (/** @type {Part} */ part) => part !== judging && this.needsVerdict(part);
    if (this.current && waits(this.current)) return this.current;
    return this.paused ? undefined : this.parts.list.find(waits);
  }

  /** Without a threshold a part is judged once, and not again and again. @param {Part} part */
  needsVerdict({ problem, reply }) {
    const { served } = this.guard;
    if (problem !== null || !reply) return problem === null;
    return served !== null && !this.guard.confirms(reply) && (served.calibration === "applied" || reply.calibration === "applied");
  }

  /** Whether the model was fitted on the place that the ROI shows. */
  async isSamePlace() {
    const memory_id = this.guard.served?.memory_id ?? null;
    if (memory_id === null || this.comparedWith === memory_id) return !this.moved;
    try {
      await this.loadDrawn(); // another station may have moved the ROI, and fitted on it
      const place = this.crops.drawn?.roi ? await fittedOn(this.key, this.crops.drawn.roi, this.crops.drawn.anchor) : "same";
      this.comparedWith = memory_id;
      this.moved = place === "other";
      this.placeUnknown = place === "unknown";
      this.update();
      return !this.moved;
    } catch (problem) {
      if (!(problem instanceof ApiError)) throw problem;
      return false; // asked again in a second
    }
  }

  async loadDrawn() {
    if (await this.crops.locate()) for (const part of this.parts.list) part.crop = null;
  }

  /** @param {Part} part */
  async judge(part) {
    this.judging = part;
    part.reply = null;
    this.update();
    try {
      part.crop = await this.crops.of(part.kept);
      if (part === this.current) void this.view.show(part.crop.blob, null, false);
      const sent = this.sent(part.kept, part.crop);
      const isTrial = part.counted || !this.counts.checked;
      const judging = judge(this.key, sent, { trial: isTrial, part_id: part.kept.id }, { signal: this.abort.signal });
      const next = this.nextPart(part);
      if (next) this.crops.prepare(next.kept);
      const reply = await judging;
      part.reply = reply;
      part.counted ||= !isTrial;
      this.guard.pixels ||= reply.decide_by !== undefined;
      void keepJudged(this.key, { id: part.kept.id, ...sent }, reply);
    } catch (problem) {
      if (this.abort.signal.aborted) return;
      if (!(problem instanceof ApiError && problem.status === 0)) part.problem = messageOf(problem);
    } finally {
      this.judging = null;
    }
    this.update();
    if (part === this.current) this.showPicture();
  }

  /** Millimetres per pixel; 1 where nobody measured. */
  get scale() {
    return this.app.facts(this.key)?.mm_per_px ?? this.crops.drawn?.mm_per_px ?? 1;
  }

  /** @param {KeptPicture} kept @param {import("../pixels/picture.js").Crop} crop */
  sent({ name }, crop) {
    return sentOf(this.crops.drawn?.roi ?? null, crop, name, this.scale);
  }

  /** What is asked about the part on the screen. @returns {FormData | null} null: it has no verdict */
  question() {
    const { current } = this;
    return current?.reply && current.crop ? questionAbout(this.key, this.sent(current.kept, current.crop)) : null;
  }

  /** What was answered about a part, unless another model or threshold is served by now. @param {Part} part */
  wordOf({ problem, reply }) {
    const confirmed = reply !== null && this.guard.confirms(reply);
    return verdictOf({ blocked: null, doubt: null, hasPicture: true, judging: false, problem, reply, confirmed }).word;
  }

  /** About the model, and about the part on the screen; what is missing for a verdict, the verdict says. */
  showNotices() {
    const texts = [this.placeUnknown && t("inspect.place_unknown"), !this.lack() && this.current?.reply?.warning].filter(Boolean);
    fill(this.notices, texts.map((text) => h("div.notice", {}, h("p", {}, text))));
  }

  /** What is missing for any verdict at all. */
  lack() {
    return this.moved ? "moved" : this.guard.lack();
  }

  /** To the screen on which that is put right. */
  showWay() {
    const lack = this.guard.doubt() || this.blocked ? null : this.lack();
    if (this.way.dataset.shown === String(lack)) return; // a link that has the focus stays
    this.way.dataset.shown = String(lack);
    this.way.hidden = lack === null;
    fill(this.way, lack && wayFrom(lack, this.key));
  }

  /** What may be believed about a part now. @param {Part | null} part @returns {import("../verdict.js").Verdict} */
  verdictOn(part) {
    const lack = this.lack();
    return verdictOf({
      blocked: this.blocked ?? (lack && t(`verdict.${lack}`)),
      doubt: this.guard.doubt(),
      hasPicture: part !== null,
      judging: part !== null && this.judging === part,
      problem: part?.problem ?? null,
      reply: part?.reply ?? null,
      confirmed: part?.reply ? this.guard.confirms(part.reply) : false,
    });
  }

  update() {
    if (this.abort.signal.aborted) return;
    const { current } = this;
    const verdict = this.verdictOn(current);
    const reply = verdict.word === "none" ? null : current?.reply;
    this.verdict.show(verdict, reply ? this.told(reply) : "");
    fill(this.name, current && [current.kept.name, h("span.muted", {}, ` · ${unitOf(this.scale)}`)]);
    this.showWay();
    this.showNotices();
    this.explain.button.disabled = !current?.reply;
    this.feedback.hidden = !this.app.mayChange;
    this.feedback.disabled = verdict.word === "none";
    this.parts.update(current);
    this.clear.hidden = this.parts.list.length === 0;
    this.wake?.();
  }

  /** What a verdict rests on. The service's words have areas in mm², which nobody knows without a scale. @param {any} reply */
  told(reply) {
    if (reply.why && (this.scale !== 1 || reply.decide_by)) return reply.why;
    return t("inspect.score", { score: score(reply.score), threshold: score(reply.threshold) });
  }

  showPicture() {
    const { current } = this;
    this.explain.close();
    this.feedback.close();
    void this.view.show(current?.crop?.blob ?? null, current?.reply ?? null, this.scale !== 1);
  }

  /** @param {Part} part */
  choose(part) {
    this.setPaused(true);
    this.current = part;
    this.update();
    this.showPicture();
    part.cell.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  /** @param {number} by */
  step(by) {
    const part = this.parts.beside(this.current, by);
    if (part) this.choose(part);
  }

  /** @param {boolean} paused */
  setPaused(paused) {
    this.paused = paused;
    fill(this.pause, icon(paused ? "play" : "pause"), t(paused ? "inspect.go_on" : "inspect.pause"));
    this.wake?.();
  }

  /** @param {import("../ingest.js").Found[]} found */
  async add(found) {
    if (!found.length) {
      this.app.say("warning", t("drop.nothing"));
      return;
    }
    await this.opened; // what was kept from before stands first, once
    this.setPaused(false);
    const { added, known, refused } = await this.set.add(found, () => undefined, (some) => this.take(some));
    for (const { name, reason } of refused) {
      this.app.say("error", reason.includes(name) ? reason : `${name}: ${reason}`);
      this.parts.refuse(name, reason);
    }
    if (known.length) this.app.say("warning", t("drop.known", { n: known.length }));
    if (!added.length) this.show(refused.length ? this.parts.list.at(-1) : this.parts.list.find(({ kept }) => kept === known.at(-1)));
  }

  /** What was dropped last, where nothing of it is judged now: else the verdict on the screen is about another part. @param {Part | undefined} part */
  show(part) {
    if (!part) return;
    this.current = part;
    this.update();
    this.showPicture();
  }

  /** The first are judged while the others are still read. @param {KeptPicture[]} added */
  take(added) {
    for (const kept of added) this.parts.add(kept);
    this.update();
  }

  async forget() {
    await this.set.forget(this.set.list);
    this.crops.cuts.clear();
    this.parts.empty();
    this.current = null;
    this.showPicture();
    this.update();
    this.drop.querySelector("button").focus({ preventScroll: true });
  }

  close() {
    this.abort.abort();
    this.guard.close();
    this.unrely();
    this.wake?.();
    this.set.close();
    this.endKeys();
  }
}

