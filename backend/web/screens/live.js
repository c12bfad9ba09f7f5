// @ts-check
/** Live: a camera or a folder, and the verdict about each part as large as the screen. */
import { fill, h, icon, keepFocus } from "../dom.js";
import { ExplainPanel } from "../explain.js";
import { FeedbackPanel } from "../feedback.js";
import { unitOf } from "../heat.js";
import { screenKeys } from "../keys.js";
import { Awake } from "../live/awake.js";
import { LastParts } from "../live/last-parts.js";
import { PartView } from "../live/part-view.js";
import { RunChart } from "../live/run-chart.js";
import { SourcePanel } from "../live/source-panel.js";
import { Tally } from "../live/tally.js";
import { nameOf, Tiles } from "../live/tiles.js";
import { liveVerdict } from "../live/verdict-now.js";
import { Loop } from "../loop.js";
import { sentAbout } from "../part.js";
import { selfTest } from "../pixels/picture.js";
import { PictureSet } from "../pictures.js";
import { questionAbout } from "../question.js";
import { RecipeGuard } from "../recipe-guard.js";
import { Camera } from "../sources/camera.js";
import { WatchedFolder } from "../sources/watched.js";
import { fixed, number, t } from "../texts.js";
import "../texts-later.js";
import { verdictPanel } from "../verdict.js";

/** @typedef {import("../main.js").App} App */
/** @typedef {import("../live/last-parts.js").LivePart} LivePart */
/** @typedef {import("../loop.js").Judged} Judged */
/** @typedef {import("../part.js").RoiVerdict} RoiVerdict */
/** @typedef {import("../sources/source.js").Source} Source */

const LOOK_EVERY_MS = 200;

/** @type {import("../main.js").OpenScreen} */
export default function liveScreen(app, key, recipe) {
  const screen = new LiveScreen(app, recipe, key ? nameOf(key) : "");
  void screen.open();
  return screen;
}

class LiveScreen {
  /** @param {App} app @param {string} recipe @param {string} chosen ROI, by `nameOf` */
  constructor(app, recipe, chosen) {
    this.app = app;
    this.recipe = recipe;
    this.chosen = chosen;
    this.guard = new RecipeGuard(recipe, () => this.update());
    this.unrely = app.heartbeat.rely();
    this.awake = new Awake(() => this.update());
    /** @type {Loop | null} */
    this.loop = null;
    /** @type {LivePart | null} on the screen */
    this.shown = null;
    /** A person looks at a part of before; else the newest is shown. */
    this.looksBack = false;
    /** @type {string | null} why nothing is judged here */
    this.blocked = t("verdict.opening");
    this.hidden = { since: 0, parts: 0, told: "" };
    this.tally = new Tally();
    this.closed = false;

    this.verdict = verdictPanel();
    this.view = new PartView((roi, x, y) => { this.chooseRoi(nameOf(roi.roi)); void this.explain.ask(x, y); });
    this.last = new LastParts((part) => this.lookAt(part));
    this.chart = new RunChart();
    this.tiles = new Tiles((name) => this.chooseRoi(name));
    this.sources = new SourcePanel(app, recipe, { onSource: (source) => this.begin(source), sizeOf: () => this.guard.rois.find(({ picture }) => picture)?.picture ?? null });
    this.explain = new ExplainPanel(app, this.view, () => this.question());
    this.feedback = new FeedbackPanel(app, () => this.question(), () => this.guard.ask());
    this.build();
    const beside = (/** @type {number} */ by) => { const part = this.last.beside(this.shown, by); if (part) this.lookAt(part); };
    this.endKeys = screenKeys({
      ArrowLeft: () => beside(-1),
      ArrowRight: () => beside(1),
      p: () => this.setPaused(!this.loop?.paused),
      s: () => this.takeOne(),
      t: () => void this.takePicture(),
      w: () => void this.explain.ask(),
      h: () => this.heat.click(),
    });
    document.addEventListener("visibilitychange", this.seen);
    this.timer = setInterval(() => this.update(), LOOK_EVERY_MS);
  }

  build() {
    this.name = h("p.inspect-name");
    this.pause = h("button", { onclick: () => this.setPaused(!this.loop?.paused), "aria-keyshortcuts": "P" });
    this.single = h("button", { onclick: () => this.takeOne(), "aria-keyshortcuts": "S" }, t("live.single"));
    this.stop = h("button", { onclick: () => this.end() }, icon("cross"), t("live.stop"));
    this.skip = h("button", { onclick: () => void this.skipBacklog() }, t("live.skip"));
    this.take = h("button", { onclick: () => void this.takePicture(), "aria-keyshortcuts": "T" }, icon("plus"));
    this.heat = h("input", { type: "checkbox", id: "heat", checked: true, "aria-keyshortcuts": "H", onchange: () => { this.view.visible = this.heat.checked; } });
    this.counts = h("input", { type: "checkbox", id: "counts", checked: true });
    this.controls = h(
      "div.row.middle",
      {},
      this.pause, this.single, this.skip, this.take,
      h("label.inline", { for: "heat" }, this.heat, t("inspect.heat")),
      h("label.inline", { for: "counts", title: t("live.counts_hint") }, this.counts, t("inspect.counts")),
      h("button", { onclick: () => void this.stage.requestFullscreen() }, t("inspect.full")),
      h("span.spacer"), this.stop,
    );
    this.facts = h("p.num.live-facts");
    this.source = h("p.muted");
    this.preview = h("div.live-preview");
    this.notices = h("div.notices", { role: "status" });
    this.stage = h("div.inspect-stage", {}, this.verdict.node, h("div.inspect-picture", {}, this.view.node, this.name));
    this.chartTitle = h("h2", {}, t("live.chart"));
    this.again = h("button", { onclick: () => { this.tally.clear(); this.update(); } }, t("live.count_anew"));
    this.node = h(
      "section.screen.live",
      {},
      h("h1.sr", {}, t("nav.live")),
      this.notices,
      this.sources.node,
      this.stage,
      this.tiles.node,
      this.controls,
      h("div.row.middle", {}, this.facts, this.source, h("span.spacer"), this.preview, this.again),
      h("div.row.middle", {}, this.explain.button, this.feedback.buttons),
      this.feedback.node,
      this.explain.node,
      h("section.panel", {}, h("div.panel-head", {}, h("h2", {}, t("live.last"))), this.last.node),
      h("section.panel", {}, this.chartTitle, this.chart.node),
      h("p.hint", {}, t("live.keys")),
    );
  }

  async open() {
    this.guard.start();
    this.update();
    const [test] = await Promise.all([selfTest(), this.app.refresh(this.recipe)]);
    if (this.closed) return;
    this.blocked = test.ok ? null : t("roi.self_test", { reason: test.reason ?? "" });
    this.update();
  }

  /** @param {Source} source */
  begin(source) {
    this.loop?.close();
    this.shown = null;
    this.looksBack = false;
    this.showPart();
    const loop = new Loop(source, this.guard, { isTest: () => !this.counts.checked, onPart: (judged) => this.judged(judged), onChange: () => this.update() });
    this.loop = loop;
    fill(this.preview, source instanceof Camera ? source.video : null);
    void this.awake.ask();
    void loop.run();
    this.update();
    this.node.scrollIntoView({ block: "start" });
  }

  end() {
    this.loop?.close();
    this.loop = null;
    this.awake.release();
    fill(this.preview);
    keepFocus(this.node, () => this.update());
  }

  /** @param {Judged} judged */
  judged(judged) {
    if (this.closed) return;
    const part = this.last.add(judged);
    this.tally.add(part.word);
    for (const { roi, verdict, reply } of judged.part.rois) {
      if (verdict !== "none") this.chart.add(nameOf(roi), { name: judged.frame.name, word: verdict, score: reply.score, threshold: reply.threshold });
    }
    if (!this.looksBack) {
      this.shown = part;
      this.showPart();
    }
    this.chart.draw();
  }

  showPart() {
    this.explain.close();
    this.feedback.close();
    const { shown } = this;
    void this.view.show(shown?.picture ?? null, shown?.part ?? null, ({ roi }) => this.guard.scaleOf(roi) !== 1);
  }

  /** @param {LivePart} part of before */
  lookAt(part) {
    this.loop?.pause(true);
    this.looksBack = true;
    this.shown = part;
    this.showPart();
    this.update();
    part.cell.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  /** @param {string} name of a ROI, by `nameOf` */
  chooseRoi(name) {
    this.chosen = name;
    this.explain.close();
    this.feedback.close();
    this.update();
  }

  /** @param {boolean} paused */
  setPaused(paused) {
    if (!paused) this.follow();
    this.loop?.pause(paused);
  }

  takeOne() {
    this.follow();
    this.loop?.single();
  }

  /** Show the newest part again. */
  follow() {
    if (!this.looksBack) return;
    this.looksBack = false;
    this.shown = this.last.list[0] ?? null;
    this.showPart();
  }

  async skipBacklog() {
    const { loop } = this;
    if (loop?.source instanceof WatchedFolder) await loop.skip();
    this.update();
  }

  /** Keep what the camera shows as a picture of the chosen ROI, to be a sample of it. */
  async takePicture() {
    const { loop, roi } = this;
    if (!(loop?.source instanceof Camera) || !roi) return;
    const set = new PictureSet(this.guard.keyOf(roi));
    const frame = await loop.source.frame();
    const { refused } = await set.add([{ file: new File([frame.blob], frame.name, { type: frame.blob.type }), folder: t("live.source.camera") }], () => undefined);
    set.close();
    if (refused.length) this.app.say("error", refused[0].reason);
    else this.app.say("done", t("live.taken", { name: roi.name, n: set.list.length }));
  }

  /** The chosen ROI, or the first one. */
  get roi() {
    const { rois } = this.guard;
    return rois.find((roi) => nameOf(roi) === this.chosen) ?? rois[0] ?? null;
  }

  /** What was answered about the chosen ROI of the part on the screen. @returns {RoiVerdict | null} */
  get found() {
    const { roi } = this;
    return (roi && this.shown?.part.rois.find((found) => nameOf(found.roi) === nameOf(roi))) ?? null;
  }

  /** What is asked about the part on the screen. @returns {FormData | null} */
  question() {
    const { found } = this;
    if (!found?.crop || !found.reply) return null;
    return questionAbout(this.guard.keyOf(found.roi), sentAbout(this.guard, found, this.shown?.frame.name ?? ""));
  }

  update() {
    if (this.closed) return;
    const { loop, shown, guard } = this;
    const verdict = liveVerdict(this);
    this.verdict.show(verdict, "");
    fill(this.name, shown && this.toldOf(shown));
    this.showNotices();
    const { roi } = this;
    const chosen = roi ? nameOf(roi) : "";
    const found = new Map(shown?.part.rois.map((one) => [nameOf(one.roi), one]));
    this.tiles.update(guard.rois, found, chosen);
    this.view.words(chosen);
    if (this.chart.roi !== chosen) {
      this.chart.show(chosen);
      fill(this.chartTitle, roi ? t("live.chart.of", { name: roi.name }) : t("live.chart"));
    }
    this.last.mark(shown);
    this.showFacts();
    this.showControls();
    const answered = this.found;
    this.explain.button.disabled = !answered?.reply;
    this.feedback.hidden = !this.app.mayChange;
    this.feedback.disabled = !answered || answered.verdict === "none" || verdict.word === "none";
    this.sources.node.hidden = loop !== null;
  }

  /** Its name, what is known of its place, and in what areas are told. @param {LivePart} shown */
  toldOf({ frame, part }) {
    const anchor = part.frame && `${t("anchor.title")}: ${part.lost ?? (part.placement ? fixed(part.placement.score, 2) : "")}`;
    return [frame.name, anchor, this.roi && unitOf(this.guard.scaleOf(this.roi))].filter(Boolean).join(" · ");
  }

  showFacts() {
    const { loop, tally } = this;
    const facts = [t("inspect.tally", tally.n)];
    if (loop) facts.push(t("live.per_s", { n: number(Number(tally.per_s.toFixed(2))) }));
    if (loop?.source.kind === "folder") facts.push(t("live.backlog", { n: loop.source.backlog }));
    if (loop?.source.kind === "camera") facts.push(t("live.dropped", { n: loop.source.dropped }));
    fill(this.facts, facts.join(" · "));
    fill(this.source, loop ? t("live.from", { name: loop.source.name }) : null);
  }

  showControls() {
    const { loop } = this;
    for (const control of [this.pause, this.single, this.stop]) control.hidden = loop === null;
    this.skip.hidden = !(loop?.source instanceof WatchedFolder) || loop.source.backlog === 0;
    this.take.hidden = !(loop?.source instanceof Camera) || !this.roi || !this.app.mayChange;
    if (!this.take.hidden) label(this.take, t("live.take", { name: this.roi?.name ?? "" }), "plus");
    label(this.pause, t(loop?.paused ? "inspect.go_on" : "inspect.pause"), loop?.paused ? "play" : "pause");
  }

  showNotices() {
    const { loop } = this;
    const texts = [
      loop?.ended ? t("live.ended", { name: loop.source.name }) : null,
      loop?.paused ? t(this.looksBack ? "live.looks_back" : "live.paused") : null,
      loop?.source.kind === "folder" ? loop.source.problem : null,
      document.hidden && loop ? t("live.hidden") : this.hidden.told,
      loop && this.awake.refused ? t("live.may_sleep") : null,
    ].filter(Boolean);
    const text = texts.join("\n");
    if (this.notices.dataset.shown === text) return;
    this.notices.dataset.shown = text;
    fill(this.notices, texts.map((one) => h("div.notice", {}, h("p", {}, one))));
  }

  /** A tab that nobody sees is slowed by the browser: its title says so, and the page once it is seen again. */
  seen = () => {
    const n_parts = this.tally.n.ok + this.tally.n.ng + this.tally.n.none;
    if (document.hidden && this.loop) {
      this.hidden = { since: Date.now(), parts: n_parts, told: "" };
      this.title = document.title;
      document.title = t("live.hidden_title");
    } else if (!document.hidden && this.title) {
      document.title = this.title;
      this.title = "";
      this.hidden.told = t("live.was_hidden", { seconds: Math.round((Date.now() - this.hidden.since) / 1000), n: n_parts - this.hidden.parts });
    }
    this.update();
  };

  close() {
    this.closed = true;
    clearInterval(this.timer);
    this.loop?.close();
    this.guard.close();
    this.unrely();
    this.awake.close();
    this.chart.close();
    if (this.title) document.title = this.title;
    this.endKeys();
    document.removeEventListener("visibilitychange", this.seen);
  }
}

/** @param {any} button @param {string} text @param {"play" | "pause" | "plus"} sign */
function label(button, text, sign) {
  if (button.dataset.shown === text) return;
  button.dataset.shown = text;
  fill(button, icon(sign), text);
}
