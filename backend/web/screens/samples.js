// @ts-check
/** Samples: good or bad by click or key, suspicious ones first; and the fit. */
import { fill, h, icon } from "../dom.js";
import { FitPanel } from "../fit.js";
import { drawnIn, loadLayout } from "../layout.js";
import { onPage, pager, pagesOf, PER_PAGE } from "../pager.js";
import { selfTest } from "../pixels/picture.js";
import { hashOf } from "../router.js";
import { Samples } from "../samples.js";
import { messageOf, score, t } from "../texts.js";
import { Few } from "../thumbnails.js";
import { closeUp } from "./closeup.js";

/** @typedef {import("../main.js").App} App */
/** @typedef {import("../api.js").RoiKey} RoiKey */
/** @typedef {import("../samples.js").Sample} Sample */
/** @typedef {import("../samples.js").Label} Label */
/** @typedef {"all" | "suspicious" | "open" | "ok" | "ng"} Filter */

const AT_ONCE = 4;
const FILTERS = /** @type {Filter[]} */ (["all", "suspicious", "open", "ok", "ng"]);
/** @type {Record<string, Label | null>} */
const LABEL_KEYS = { o: "ok", n: "ng", u: null };

/** @type {import("../main.js").OpenScreen} */
export default function samplesScreen(app, key) {
  if (!key) throw new Error("no ROI");
  const screen = new SamplesScreen(app, key);
  return Object.assign(screen, { ready: screen.open() });
}

class SamplesScreen {
  /** @param {App} app @param {RoiKey} key */
  constructor(app, key) {
    this.app = app;
    this.key = key;
    this.samples = new Samples(key, () => this.update());
    /** @type {Filter} */
    this.filter = "all";
    this.page = 0;
    this.closed = false;
    /** @type {Map<string, any>} those of the page that is shown */
    this.cells = new Map();
    this.few = new Few(AT_ONCE);
    this.pagers = [pager((page) => this.turn(page)), pager((page) => this.turn(page))];
    this.notices = h("div.notices");
    this.counts = h("div.row.middle");
    this.storing = h("p.muted", { role: "status" }, t("line.loading"));
    this.folders = h("div.folders");
    this.search = h("input", { type: "search", id: "samples-find", autocomplete: "off", oninput: () => this.choose(this.filter) });
    this.find = h("label.inline", { for: "samples-find", hidden: true }, h("span", {}, t("samples.find")), this.search);
    this.nothing = h("p.muted", { role: "status" });
    this.grid = h("div.samples", { role: "list", "aria-label": t("nav.samples"), onkeydown: (/** @type {KeyboardEvent} */ event) => this.onKey(event) });
    this.fit = new FitPanel(app, key, {
      count: () => this.samples.fitting,
      pending: () => this.samples.pending.length,
      size: () => this.samples.size,
      onFitted: () => void this.refresh(),
    });
    this.fit.node.tabIndex = -1; // where the focus goes when all is decided
    this.node = h(
      "section.screen",
      {},
      h("header.screen-head", {}, h("h1", {}, t("nav.samples")), this.counts, h("span.spacer"), this.storing),
      this.notices,
      this.fit.node,
      this.folders,
      h("p.hint", {}, t(app.mayChange ? "samples.keys" : "samples.keys_look")),
      h("div.row.middle", {}, this.pagers[0].node, this.find),
      this.nothing,
      this.grid,
      this.pagers[1].node,
    );
    this.watcher = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) if (isIntersecting) void this.showPicture(/** @type {HTMLElement} */ (target));
    }, { root: document.querySelector("main"), rootMargin: "400px" });
    // What could not be stored while the service was away is stored when it is back.
    this.unwatch = app.heartbeat.state.watch(({ status }) => {
      if (status === "ok" && this.samples.stopped) void this.samples.store();
    });
  }

  async open() {
    const [test, { content }, classes] = await Promise.all([
      selfTest(), loadLayout(this.key.recipe_id), this.samples.read(), this.app.refresh(this.key.recipe_id),
    ]);
    if (!test.ok) fill(this.notices, h("div.notice.bad", { role: "alert" }, t("roi.self_test", { reason: test.reason ?? "" })));
    await this.samples.load(classes, drawnIn(content, this.key), this.app.facts(this.key)?.fitted ?? false);
    if (this.closed) return;
    this.samples.sort();
    this.build();
    if (test.ok) this.showWay();
    if (test.ok && this.app.mayChange) void this.samples.store();
    void this.fit.open();
  }

  /** To what must come before. */
  showWay() {
    const { drawn, list } = this.samples;
    const way = (/** @type {string} */ text, /** @type {string} */ next) =>
      h("div.notice", {}, h("p", {}, text), this.app.mayChange ? h("a.button.primary", { href: hashOf("roi", this.key) }, next, icon("right")) : null);
    if (!list.length) fill(this.notices, way(t("samples.empty"), t("samples.add")));
    else if (!drawn?.roi && list.some(({ kept }) => kept)) fill(this.notices, way(t("samples.draw_first"), t("card.next.draw")));
  }

  /** After a fit: what is suspicious now stands first. */
  async refresh() {
    if (this.app.facts(this.key)?.fitted) await this.samples.rank();
    this.samples.sort();
    if (!this.closed) this.build();
  }

  build() {
    this.watcher.disconnect();
    this.cells.clear();
    fill(this.grid);
    this.page = 0;
    this.update();
    this.beginAt(this.shown()[0]);
  }

  /** @param {number} page */
  turn(page) {
    this.focus(this.shown()[page * PER_PAGE]);
    this.grid.scrollIntoView({ block: "start" });
  }

  /** The cells of the page; those that stay keep their picture and the focus. */
  showCells() {
    const shown = this.shown();
    this.page = Math.min(this.page, pagesOf(shown.length) - 1);
    const samples = onPage(shown, this.page);
    const ids = new Set(samples.map(({ id }) => id));
    for (const [id, cell] of this.cells) {
      if (ids.has(id)) continue;
      cell.remove();
      this.cells.delete(id);
    }
    let place = this.grid.firstChild;
    for (const sample of samples) {
      const cell = this.cells.get(sample.id) ?? this.cell(sample);
      if (cell === place) place = place.nextSibling;
      else this.grid.insertBefore(cell, place);
      this.updateCell(sample);
    }
    for (const { show } of this.pagers) show(this.page, shown.length);
    this.find.hidden = this.samples.list.length <= PER_PAGE;
    fill(this.nothing, !shown.length && this.search.value ? t("samples.not_found", { text: this.search.value }) : null);
  }

  /** Where the tabulator enters the grid. @param {Sample | undefined} sample */
  beginAt(sample) {
    for (const cell of this.cells.values()) cell.tabIndex = -1;
    if (sample) this.cells.get(sample.id).tabIndex = 0;
  }

  /** @param {Sample} sample */
  enlarge(sample) {
    closeUp(sample, {
      urlOf: (one) => this.samples.urlOf(one, true),
      next: (one, by) => this.shown()[this.shown().indexOf(one) + by],
      label: this.app.mayChange ? (one, label) => this.mark(one, label) : null,
      onClose: (one) => this.focus(one),
    });
  }

  /** A row for each folder in which something is to be decided. */
  updateFolders() {
    /** @type {Map<string, number>} */
    const folders = new Map();
    for (const { folder, kept, label } of this.samples.list) if (kept && label === null) folders.set(folder, (folders.get(folder) ?? 0) + 1);
    const text = JSON.stringify([...folders]);
    if (this.folders.dataset.shown === text) return; // a button that has the focus stays
    this.folders.dataset.shown = text;
    const hadFocus = this.folders.contains(document.activeElement);
    fill(this.folders, this.app.mayChange ? [...folders].map(([folder, n]) => this.folderRow(folder, n)) : null);
    if (hadFocus) (this.folders.querySelector("button") ?? this.fit.node).focus({ preventScroll: true });
  }

  /** Label all undecided pictures of a folder at once. @param {string} folder @param {number} n */
  folderRow(folder, n) {
    const label = (/** @type {Label} */ as) => () => {
      void this.samples.label(this.samples.list.filter((sample) => sample.folder === folder && sample.kept && sample.label === null), as);
    };
    return h(
      "div.folder-row",
      {},
      icon("folder"),
      h("span", {}, t("samples.folder", { folder: folder || t("samples.no_folder"), n })),
      h("button.is-good", { onclick: label("ok") }, icon("check"), t("samples.rest_good")),
      h("button.is-bad", { onclick: label("ng") }, icon("cross"), t("samples.rest_bad")),
    );
  }

  /** @param {Sample} sample */
  cell(sample) {
    const image = h("div.sample-picture", { "data-id": sample.id, onclick: () => this.enlarge(sample) });
    const mark = h("span.sample-mark", { "aria-hidden": "true" });
    const facts = h("p.sample-facts");
    const good = h("button.is-good", { tabindex: -1, onclick: () => this.toggle(sample, "ok") }, icon("check"), t("samples.good"));
    const bad = h("button.is-bad", { tabindex: -1, onclick: () => this.toggle(sample, "ng") }, icon("cross"), t("samples.bad"));
    const cell = h(
      "div.sample",
      { role: "listitem", tabindex: -1, "data-id": sample.id, "data-name": sample.name },
      image,
      mark,
      h("p.sample-name", { title: sample.folder ? `${sample.folder}/${sample.name}` : sample.name }, sample.name),
      facts,
      this.app.mayChange ? h("div.sample-buttons", {}, good, bad) : null,
    );
    Object.assign(cell, { good, bad, facts, mark });
    this.cells.set(sample.id, cell);
    this.watcher.observe(image);
    return cell;
  }

  /** @param {HTMLElement} place */
  async showPicture(place) {
    this.watcher.unobserve(place);
    const sample = this.samples.list.find(({ id }) => id === place.dataset.id);
    if (!sample) return;
    try {
      const url = await this.few.run(() => (place.isConnected ? this.samples.urlOf(sample) : null)); // null: the page was turned
      if (url && place.isConnected) fill(place, h("img", { src: url, alt: "", draggable: "false" }));
    } catch (problem) {
      if (!this.closed) fill(place, h("p.muted", {}, messageOf(problem)));
    }
  }

  shown() {
    return this.samples.list.filter((sample) => this.isShown(sample));
  }

  /** @param {Sample} sample */
  isShown({ name, label, suspicious }) {
    if (!name.toLowerCase().includes(this.search.value.trim().toLowerCase())) return false;
    if (this.filter === "suspicious") return suspicious;
    if (this.filter === "open") return label === null;
    return this.filter === "all" || label === this.filter;
  }

  update() {
    const { list } = this.samples;
    const n = {
      all: list.length,
      suspicious: list.filter((sample) => sample.suspicious).length,
      open: this.samples.count(null),
      ok: this.samples.count("ok"),
      ng: this.samples.count("ng"),
    };
    const hadFocus = this.counts.contains(document.activeElement);
    fill(
      this.counts,
      FILTERS.filter((filter) => n[filter] || filter === "all").map((filter) =>
        h("button.chip", { "aria-pressed": String(filter === this.filter), onclick: () => this.choose(filter) }, t(`samples.filter.${filter}`, { n: n[filter] })),
      ),
    );
    if (hadFocus) this.counts.querySelector("[aria-pressed=true]")?.focus({ preventScroll: true });
    this.showCells();
    const { pending, stopped } = this.samples;
    fill(
      this.storing,
      stopped
        ? [t("samples.stopped", { n: pending.length, reason: stopped.message }), " ", h("button", { onclick: () => void this.samples.store() }, t("again"))]
        : pending.length
          ? t("samples.storing", { n: pending.length })
          : list.length
            ? t(n.open === list.length ? "samples.undecided" : "samples.stored")
            : null,
    );
    this.updateFolders();
    this.fit.update();
  }

  /** @param {Sample} sample */
  updateCell(sample) {
    const cell = this.cells.get(sample.id);
    if (!cell) return;
    const { label, suspicious, problem, kept } = sample;
    cell.dataset.label = label ?? "";
    cell.classList.toggle("suspicious", suspicious);
    cell.good.setAttribute("aria-pressed", String(label === "ok"));
    cell.bad.setAttribute("aria-pressed", String(label === "ng"));
    fill(cell.mark, label === "ok" ? icon("check") : label === "ng" ? icon("cross") : null);
    fill(
      cell.facts,
      suspicious ? h("span.badge.warn", {}, t("samples.suspicious")) : null,
      kept?.duplicateOf ? h("span.badge.warn", {}, t("samples.duplicate", { name: kept.duplicateOf })) : null,
      problem ? h("span.badge.bad", { title: problem }, t("samples.refused", { reason: problem })) : null,
      !problem && this.samples.isPending(sample) ? h("span.muted", {}, t("samples.pending")) : null,
      sample.score !== null && label === "ok" ? h("span.muted.num", {}, t("samples.score", { score: score(sample.score) })) : null,
    );
    cell.setAttribute("aria-label", t(`samples.cell.${label ?? "open"}`, { name: sample.name }));
  }

  /** @param {Filter} filter */
  choose(filter) {
    this.filter = filter;
    this.page = 0;
    this.update();
    this.beginAt(this.shown()[0]);
  }

  /** @param {Sample} sample @param {Label} label */
  toggle(sample, label) {
    this.mark(sample, sample.label === label ? null : label);
  }

  /** @param {Sample} sample @param {Label | null} label */
  mark(sample, label) {
    if (label === null && !sample.kept) this.app.say("warning", t("samples.only_service", { name: sample.name }));
    else void this.samples.label([sample], label);
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    const cell = /** @type {HTMLElement | null} */ (/** @type {HTMLElement} */ (event.target).closest(".sample"));
    const shown = this.shown();
    const at = shown.findIndex(({ id }) => id === cell?.dataset.id);
    if (at < 0 || event.ctrlKey || event.altKey || event.metaKey) return;
    const label = LABEL_KEYS[event.key.toLowerCase()];
    const cells = /** @type {HTMLElement[]} */ ([...this.grid.children]);
    const columns = Math.max(1, cells.findIndex(({ offsetTop }) => offsetTop > cells[0].offsetTop));
    const steps = /** @type {Record<string, number>} */ ({ ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns });
    if (label !== undefined) {
      if (!this.app.mayChange) return;
      this.mark(shown[at], label);
      this.focus(shown[at + 1] ?? shown[at]);
    } else if (steps[event.key]) this.focus(shown[at + steps[event.key]]);
    else if (event.key === "Enter" && event.target === cell) this.enlarge(shown[at]);
    else if (event.key === "Home") this.focus(shown[0]);
    else if (event.key === "End") this.focus(shown[shown.length - 1]);
    else return;
    event.preventDefault();
  }

  /** @param {Sample | undefined} sample */
  focus(sample) {
    const at = sample ? this.shown().indexOf(sample) : -1;
    if (!sample || at < 0) return;
    const page = Math.floor(at / PER_PAGE);
    if (page !== this.page || !this.cells.has(sample.id)) {
      this.page = page;
      this.showCells();
      this.samples.keepUrls(onPage(this.shown(), page));
    }
    const cell = this.cells.get(sample.id);
    this.beginAt(sample);
    cell.focus({ preventScroll: true });
    cell.scrollIntoView({ block: "nearest" });
  }

  close() {
    this.closed = true;
    this.unwatch();
    this.watcher.disconnect();
    this.fit.close();
    this.samples.close();
  }
}

