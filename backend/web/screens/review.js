// @ts-check
/** Review: the parts of a shift with their verdicts; a person says which were wrong, and the service learns it. */
import { ApiError, call, fetchBlob, idsOf } from "../api.js";
import { field, fill, h, icon, keepFocus } from "../dom.js";
import { changeJudged, forgetJudged, judgedParts, lost } from "../judged.js";
import { questionAbout } from "../question.js";
import { exported, Folder, kindOf } from "../review-export.js";
import { roiText } from "../router.js";
import { messageOf, moment, score, t } from "../texts.js";
import "../texts-later.js";
import { shapeOfWord } from "../verdict.js";
import { Zip } from "../zip.js";

/** @typedef {import("../main.js").App} App */
/** @typedef {import("../api.js").RoiKey} RoiKey */
/** @typedef {import("../judged.js").Judged} Judged */
/** @typedef {import("../judged.js").Truth} Truth */
/**
 * A part: of this browser, of the service's history, or of both.
 * @typedef {{at: string, decision: "ok" | "ng" | null, score: number, threshold: number | null, judged: Judged | null, number: number | null}} Entry
 */

const AT_ONCE = 60;
const MOST_OF_HISTORY = 1000;

/** @type {import("../main.js").OpenScreen} */
export default function reviewScreen(app, key) {
  if (!key) throw new Error("no ROI");
  const screen = new ReviewScreen(app, key);
  return Object.assign(screen, { ready: screen.open() });
}

class ReviewScreen {
  /** @param {App} app @param {RoiKey} key */
  constructor(app, key) {
    this.app = app;
    this.key = key;
    this.abort = new AbortController();
    /** @type {Entry[]} the newest first */
    this.entries = [];
    this.most = AT_ONCE;
    /** @type {Map<Entry, string>} */
    this.urls = new Map();
    this.archive = "";
    this.closing = h("button");

    const redraw = () => this.filter();
    this.rois = h("select", { id: "review-roi", onchange: () => this.go() });
    this.verdict = h("select", { id: "review-verdict", onchange: redraw }, [
      h("option", { value: "" }, t("review.all")),
      h("option", { value: "ng" }, t("verdict.word.ng")),
      h("option", { value: "ok" }, t("verdict.word.ok")),
      h("option", { value: "none" }, t("review.none")),
    ]);
    this.from = h("input", { id: "review-from", type: "datetime-local", onchange: redraw });
    this.until = h("input", { id: "review-until", type: "datetime-local", onchange: redraw });
    this.marked = h("input", { id: "review-marked", type: "checkbox", onchange: redraw });
    this.notices = h("div.notices");
    this.count = h("p.num", { role: "status" });
    this.list = h("div.review");
    this.more = h("button", { hidden: true, onclick: () => { this.most += AT_ONCE; this.show(); } }, t("review.more"));
    this.ask = h("button.primary", { onclick: () => void this.askAll() });
    this.learning = h("section.panel", { hidden: true, "aria-live": "polite" });
    this.save = h("button", { onclick: () => void this.export() }, icon("folder"), t("review.export"));
    this.download = h("a.button.primary", { hidden: true });
    this.forget = h("button", { onclick: () => void this.clear() }, icon("trash"), t("review.forget"));
    this.node = h(
      "section.screen",
      {},
      h("header.screen-head", {}, h("h1", {}, t("nav.review")), h("label.inline", { for: "review-roi" }, h("span", {}, t("nav.roi")), this.rois)),
      this.notices,
      h(
        "div.row",
        {},
        field(t("review.verdict"), this.verdict),
        field(t("review.from"), this.from),
        field(t("review.until"), this.until),
        h("label.inline", { for: "review-marked" }, this.marked, t("review.only_marked")),
      ),
      h("div.row.middle", {}, this.count, h("span.spacer"), this.ask, this.save, this.download, this.forget),
      this.learning,
      this.list,
      this.more,
      h("p.hint", {}, t("review.hint")),
    );
  }

  async open() {
    const [rois] = await Promise.all([this.app.refresh(this.key.recipe_id), this.load()]);
    if (this.abort.signal.aborted) return;
    fill(this.rois, rois.map((roi) => h("option", { value: roiText(roi), selected: roiText(roi) === roiText(this.key) }, roi.name)));
    this.show();
  }

  go() {
    const roi = this.app.session.value.rois?.find((one) => roiText(one) === this.rois.value);
    if (roi) this.app.go("review", roi);
  }

  async load() {
    const parts = await judgedParts(this.key);
    /** @type {Entry[]} */
    const entries = parts.map((judged) => ({ at: judged.at, decision: judged.decision, score: judged.score, threshold: judged.threshold, judged, number: null }));
    const known = new Set(parts.map(({ request_id }) => request_id));
    for (const one of await this.history()) {
      if (known.has(one.request_id ?? "")) continue;
      entries.push({ at: one.at_utc, decision: one.decision ?? null, score: one.score, threshold: one.threshold ?? null, judged: null, number: one.number });
    }
    this.entries = entries.sort((a, b) => Date.parse(b.at) - Date.parse(a.at));
  }

  /** What the service keeps; nothing where this key may not see it. @returns {Promise<any[]>} */
  async history() {
    try {
      const { judgements } = await call("history", { query: { ...idsOf(this.key), limit: MOST_OF_HISTORY }, signal: this.abort.signal });
      return judgements;
    } catch (problem) {
      if (problem instanceof ApiError && problem.status === 403) return [];
      throw problem;
    }
  }

  /** Another filter: from the newest on. */
  filter() {
    this.most = AT_ONCE;
    this.show();
  }

  get chosen() {
    const [from, until] = [this.from.value, this.until.value].map((text) => (text ? new Date(text).getTime() : null));
    return this.entries.filter(({ at, decision, judged }) => {
      const time = Date.parse(at);
      if (this.verdict.value && (decision ?? "none") !== this.verdict.value) return false;
      if ((from !== null && time < from) || (until !== null && time >= until)) return false;
      return !this.marked.checked || judged?.truth !== undefined && judged?.truth !== null;
    });
  }

  /** Parts that were judged wrongly, and of which the service does not know it. @returns {Judged[]} */
  get wrong() {
    return this.entries.flatMap(({ judged }) => (judged && isWrong(judged) && !judged.learnt ? [judged] : []));
  }

  show() {
    const { chosen } = this;
    const n_wrong = this.wrong.length;
    fill(this.count, t("review.count", { n: chosen.length, all: this.entries.length }));
    fill(this.notices, lost.n ? h("div.notice", {}, h("p", {}, t("review.lost", { n: lost.n, reason: lost.reason }))) : null);
    keepFocus(this.node, () => {
      this.ask.hidden = n_wrong === 0 || !this.app.mayChange;
      fill(this.ask, t("review.ask", { n: n_wrong }));
      this.save.disabled = !chosen.some(({ judged }) => judged && kindOf(judged));
      this.forget.hidden = !this.entries.some(({ judged }) => judged);
      this.more.hidden = chosen.length <= this.most;
      fill(this.list, chosen.length ? chosen.slice(0, this.most).map((entry) => this.card(entry)) : h("p.muted", {}, t(this.entries.length ? "review.none_here" : "review.empty")));
    });
  }

  /** @param {Entry} entry */
  card(entry) {
    const { judged, decision } = entry;
    const word = decision ?? "none";
    const picture = h("img", { alt: "", loading: "lazy" });
    void this.urlOf(entry).then((url) => { picture.src = url; });
    const name = judged?.name ?? t("review.number", { n: entry.number ?? 0 });
    const limit = entry.threshold === null ? "–" : score(entry.threshold);
    return h(
      "article.review-part",
      { "data-word": word, "data-name": name, "data-truth": judged?.truth ?? "" },
      h("div.review-picture", {}, picture, h("span.part-sign", {}, shapeOfWord(word))),
      h("h2", {}, t("inspect.part", { name, word: t(`verdict.word.${word}`) })),
      h("p.muted.num", {}, t("inspect.score", { score: score(entry.score), threshold: limit })),
      h("p.muted", {}, moment(entry.at)),
      judged ? this.marks(judged) : h("p.muted", {}, t("review.only_history")),
    );
  }

  /** @param {Judged} judged */
  marks(judged) {
    const button = (/** @type {Truth} */ truth) =>
      h(
        `button.is-${truth}`,
        { "aria-pressed": String(judged.truth === truth), disabled: judged.learnt, "aria-label": t(truth === "good" ? "review.was_good" : "review.is_bad", { name: judged.name }), onclick: () => void this.mark(judged, truth) },
        icon(truth === "good" ? "check" : "cross"),
        t(truth === "good" ? "samples.good" : "samples.bad"),
      );
    const told = judged.learnt ? t("review.learnt") : isWrong(judged) ? t(judged.truth === "good" ? "review.false_reject" : "review.escape") : "";
    return h("div", {}, h("div.row", {}, button("good"), button("bad")), h("p.muted", {}, told));
  }

  /** @param {Judged} judged @param {Truth} truth */
  async mark(judged, truth) {
    await changeJudged(judged, { truth: judged.truth === truth ? null : truth });
    this.show();
    this.list.querySelector(`[data-name="${CSS.escape(judged.name)}"] .is-${truth}`)?.focus({ preventScroll: true });
  }

  /** @param {Entry} entry @returns {Promise<string>} address of its picture */
  async urlOf(entry) {
    const found = this.urls.get(entry);
    if (found) return found;
    const blob = entry.judged ? entry.judged.crop : await fetchBlob("history/thumbnail", { query: { ...idsOf(this.key), number: entry.number ?? 0 }, signal: this.abort.signal });
    const url = URL.createObjectURL(blob);
    this.urls.set(entry, url);
    return url;
  }

  /** What each would change by itself, before anything is learnt. */
  async askAll() {
    const { wrong } = this;
    this.learning.hidden = false;
    const rows = wrong.map((judged) => ({ judged, cells: h("td", { colspan: 4 }, t("feedback.asking")), row: h("tr") }));
    for (const { judged, row, cells } of rows) fill(row, h("th", { scope: "row" }, judged.name), cells);
    const heads = ["", t("review.as"), t("nav.threshold"), t("feedback.rejected"), t("feedback.escaped")].map((head) => h("th", { scope: "col" }, head));
    const learn = h("button.primary", { disabled: true, onclick: () => void this.learnAll(rows, learn) }, t("review.learn", { n: wrong.length }));
    this.closing = h("button", { onclick: () => this.endLearning() }, t("cancel"));
    fill(
      this.learning,
      h("h2", {}, t("review.changes")),
      h("p", {}, t("review.each_alone")),
      h("div.scrolls", {}, h("table", {}, h("thead", {}, h("tr", {}, heads)), h("tbody", {}, rows.map(({ row }) => row)))),
      h("div.row", {}, learn, this.closing),
    );
    this.closing.focus({ preventScroll: true });
    let possible = 0;
    for (const { judged, row } of rows) possible += (await this.tell(judged, row, true)) ? 1 : 0;
    learn.disabled = possible === 0;
  }

  /**
   * Ask the service, or let it learn, and show in a row what it says.
   * @param {Judged} judged @param {any} row @param {boolean} dry_run
   * @returns {Promise<boolean>}
   */
  async tell(judged, row, dry_run) {
    const as = t(judged.truth === "good" ? "samples.good" : "samples.bad");
    const name = h("th", { scope: "row" }, judged.name);
    const form = questionAbout(this.key, judged, { verdict: judged.truth, dry_run });
    try {
      const { before, after, changed } = await call("feedback", { form, signal: this.abort.signal });
      const pair = (/** @type {string | number} */ then, /** @type {string | number} */ now) => h("td.num", {}, t("review.from_to", { then, now }));
      fill(row, name, h("td", {}, as), pair(score(before.threshold), score(after.threshold)), pair(before.n_rejected, after.n_rejected), pair(before.n_escaped, after.n_escaped));
      if (!dry_run || !changed) await changeJudged(judged, { learnt: true });
      return changed;
    } catch (problem) {
      if (!(problem instanceof ApiError)) throw problem;
      fill(row, name, h("td", {}, as), h("td", { colspan: 3 }, problem.message));
      return false;
    }
  }

  /** One after the other: each changes the threshold that the next meets. @param {{judged: Judged, row: any}[]} rows @param {any} button */
  async learnAll(rows, button) {
    keepFocus(this.learning, () => { button.disabled = true; });
    let n = 0;
    for (const { judged, row } of rows) if (!judged.learnt && (await this.tell(judged, row, false))) n++;
    this.app.say("done", t("review.learned", { n }));
    fill(this.closing, t("close"));
    this.show();
  }

  endLearning() {
    this.learning.hidden = true;
    fill(this.learning);
    this.show();
    (this.ask.hidden ? this.verdict : this.ask).focus({ preventScroll: true });
  }

  /** The parts that are shown, and what the ROI was fitted on. */
  async export() {
    const parts = this.chosen.flatMap(({ judged }) => (judged ? [judged] : []));
    const { roi_id } = this.key;
    try {
      // Only asked for at once after the click, and by none but Chromium and Edge, over TLS or from this computer.
      const parent = await /** @type {any} */ (globalThis).showDirectoryPicker?.({ id: "review", mode: "readwrite" });
      this.save.disabled = true;
      const zip = new Zip();
      const folder = parent && new Folder(parent, `${roi_id} ${new Date().toISOString().slice(0, 19).replaceAll(":", "-")}`);
      const { n_train, n_test } = await exported(this.key, parts, folder ?? zip, (done, total) => fill(this.count, t("review.exporting", { done, total })));
      if (!folder) this.offer(zip.blob(), `${roi_id}.zip`);
      const told = t(n_train ? "review.exported" : "review.exported_alone", { n_train, n: n_test });
      this.app.say(n_train ? "done" : "warning", folder ? `${told} ${t("review.into", { name: `${parent.name}/${folder.name}` })}` : told);
    } catch (problem) {
      if (problem instanceof DOMException && problem.name === "AbortError") return; // no folder was chosen
      this.app.say("error", problem instanceof RangeError ? t("review.too_many") : messageOf(problem));
    }
    this.show();
  }

  /** @param {Blob} blob @param {string} file */
  offer(blob, file) {
    URL.revokeObjectURL(this.archive);
    this.archive = URL.createObjectURL(blob);
    Object.assign(this.download, { href: this.archive, download: file, hidden: false });
    fill(this.download, icon("file"), t("save_file", { file }));
  }

  async clear() {
    await forgetJudged(this.key);
    await this.load();
    this.show();
  }

  close() {
    this.abort.abort();
    for (const url of [...this.urls.values(), this.archive]) URL.revokeObjectURL(url);
  }
}

/** Whether a person says another thing of a part than the verdict. @param {Judged} part */
function isWrong({ truth, decision }) {
  return (truth === "good" && decision === "ng") || (truth === "bad" && decision === "ok");
}
