// @ts-check
/** ROI: pictures in, the ROIs of a recipe drawn on one of them, the crop of one ROI from all of them below. */
import { rectOf } from "../anchor.js";
import { field, fill, h, icon, keepFocus } from "../dom.js";
import { cropChoice, guiFiles } from "../gui-files.js";
import { dropZone } from "../ingest.js";
import { readLayout } from "../layout.js";
import { selfTest } from "../pixels/picture.js";
import "../pixels/roi-editor.js";
import { pushedInside, wholeOf } from "../pixels/roi-edit.js";
import { beyond, cutAs } from "../pixels/roi.js";
import { PictureSet, usualSize } from "../pictures.js";
import { lockedScale } from "../rois.js";
import { hashOf, roiText } from "../router.js";
import { number, t } from "../texts.js";
import { AnchorPanel } from "./roi-anchor.js";
import { RecipeChanges } from "./roi-changes.js";
import { Draft } from "./roi-draft.js";
import { RoiList } from "./roi-list.js";
import { conflictNotice, noticesOf, takePictures } from "./roi-notices.js";
import { Places, toldOf } from "./roi-places.js";
import { ScaleField } from "./roi-scale.js";
import { cropStrip } from "./strip.js";

/** @typedef {import("../main.js").App} App */
/** @typedef {import("../api.js").RoiKey} RoiKey */
/** @typedef {import("../layout.js").LayoutRoi} LayoutRoi */
/** @typedef {import("../keep.js").KeptPicture} KeptPicture */
/** @typedef {import("../pixels/roi.js").Roi} Roi */

const FOLLOW_EVERY_MS = 2000;

/** @type {import("../main.js").OpenScreen} */
export default function roiScreen(app, key) {
  if (!key) throw new Error("no ROI");
  const screen = new RoiScreen(app, key);
  return Object.assign(screen, { ready: screen.open() });
}

class RoiScreen {
  /** @param {App} app @param {RoiKey} key */
  constructor(app, key) {
    this.app = app;
    this.key = key;
    this.set = new PictureSet(key);
    this.draft = this.draftOf(key);
    this.places = new Places(key.recipe_id, this.set, () => this.foundPlace());
    /** @type {import("../layout.js").Layout} as the service has it */
    this.layout = { format: "", version: 0, rois: [] };
    /** @type {string | null} */
    this.etag = null;
    /** @type {KeptPicture | null} */
    this.chosen = null;
    this.closed = false;
    /** @type {Promise<unknown>} */
    this.ready = Promise.resolve();
    this.othersShown = "";

    this.status = h("span.muted", { role: "status" });
    this.conflict = h("div.notices");
    this.notices = h("div.notices");
    this.name = h("input", { id: "roi-name", maxlength: 60, oninput: () => this.edit({ name: this.name.value.trim() || this.key.roi_id }) });
    this.scale = new ScaleField(key.recipe_id, (value) => void this.setScale(value));
    this.crop = cropChoice((crop) => this.mine.roi && this.draw(cutAs(this.mine.roi, crop)));
    this.files = guiFiles(app, () => key.recipe_id, () => app.go("line", null));
    this.editor = /** @type {any} */ (document.createElement("roi-editor"));
    this.editor.addEventListener("roi-change", (/** @type {CustomEvent<Roi>} */ event) => this.changed(event.detail));
    this.editor.addEventListener("roi-chosen", (/** @type {CustomEvent<string>} */ event) => this.rois.filter(({ roi_id }) => roi_id === event.detail).forEach((roi) => this.changes.go(roi)));
    this.editor.addEventListener("scale-measured", (/** @type {CustomEvent} */ event) => this.takeScale(event.detail.mm_per_px));
    this.where = h("p.hint.roi-where", { role: "status" });
    this.changes = new RecipeChanges(app, key.recipe_id, { draft: () => this.draft, rois: () => this.rois, follow: () => this.follow() });
    this.list = new RoiList(key.recipe_id, {
      choose: (roi) => this.changes.go(roi),
      add: () => void this.changes.add({ roi: null, picture: null }),
      copy: () => void this.changes.copy(),
      enable: (enabled) => this.enable(enabled),
      remove: () => void this.changes.remove(),
    });
    this.anchor = new AnchorPanel(key.recipe_id, {
      reference: () => this.reference(),
      draw: (rectangle) => this.drawAnchor(rectangle),
      fitted: () => this.namesOf((facts) => facts.fitted),
      changed: () => this.follow(),
    });
    this.strip = cropStrip(this.set, {
      onChoose: (picture) => void this.choose(picture),
      titleOf: (picture) => t("roi.cell", { name: picture.name }),
      problemOf: (picture) => this.problemOf(picture),
      look: (picture) => this.places.look(picture),
      roiIn: (roi, picture) => this.places.roiIn(roi, picture),
    });
    this.stripTitle = h("h2", {}, "");
    this.next = h("a.button.primary", { href: hashOf("samples", key) }, t(app.mayChange ? "roi.next" : "roi.next_look"), icon("right"));
    this.work = h(
      "div.roi-work",
      { hidden: true },
      h("div.roi-main", {}, h("div.panel", {}, this.editor, this.where), h("div.roi-below", {}, this.list.node, this.anchor.node)),
      h(
        "div.roi-side",
        {},
        h("div.panel", {}, field(t("roi.name"), this.name), this.scale.node, this.crop.node, this.next),
        dropZone((found) => void this.take(found), { text: t("roi.drop_more"), compact: true }),
      ),
    );
    this.stripPanel = h("div.panel", { hidden: true }, h("div.panel-head", {}, this.stripTitle, h("p.hint", {}, t("roi.strip_hint"))), this.strip.node);
    this.drop = dropZone((found) => void this.take(found), { text: t("roi.drop") });
    this.drop.hidden = true;
    this.node = h(
      "section.screen",
      {},
      h("header.screen-head", {}, h("h1", {}, t("nav.roi")), this.status),
      this.conflict,
      this.notices,
      this.drop,
      this.work,
      this.stripPanel,
      this.files.node,
    );
  }

  get mine() {
    return this.draft.mine;
  }

  /** @param {RoiKey} key */
  draftOf(key) {
    return new Draft(key, {
      status: (text) => fill(this.status, this.app.mayChange ? text : t("roi.look_only")),
      failed: (text) => this.app.say("error", text),
      conflict: (theirs) => this.showConflict(theirs),
      saved: () => void this.app.refresh(key.recipe_id).then(() => this.follow()),
    });
  }

  async open() {
    const test = await selfTest();
    if (this.closed) return;
    if (!test.ok) {
      fill(this.notices, h("div.notice.bad", { role: "alert" }, t("roi.self_test", { reason: test.reason ?? "" })));
      return;
    }
    await Promise.all([this.set.load(), this.loadLayout(false), this.app.refresh(this.key.recipe_id)]);
    if (this.closed) return;
    this.draft.open(this.layout);
    this.show();
    this.timer = setInterval(() => {
      if (!document.hidden && this.app.heartbeat.state.value.status === "ok") void this.follow();
    }, FOLLOW_EVERY_MS);
  }

  /** Another ROI of the recipe on the same pictures. @param {RoiKey} key @returns {boolean} whether it is one */
  turnTo(key) {
    if (key.recipe_id !== this.key.recipe_id || !this.timer) return false;
    void this.turn(key);
    return true;
  }

  /** @param {RoiKey} key */
  async turn(key) {
    const before = this.draft;
    this.key = key;
    this.draft = this.draftOf(key);
    fill(this.conflict);
    void before.save();
    this.draft.open(this.layout);
    this.next.href = hashOf("samples", key);
    await this.set.turnTo(key);
    if (this.closed || this.key !== key) return;
    const shown = this.chosen?.file;
    this.chosen = null;
    this.editor.roi = null;
    this.show();
    const same = this.set.list.find(({ file }) => file === shown);
    if (same) void this.choose(same);
  }

  /** @param {boolean} quiet @returns {Promise<boolean>} whether it is another one than before */
  async loadLayout(quiet) {
    const found = await readLayout(this.key.recipe_id, { etag: this.etag, quiet });
    if (!found) return false;
    [this.layout, this.etag] = [found.content, found.etag];
    this.places.use(found.content.anchor ?? null);
    return true;
  }

  /** Show what other stations changed, and what was stored from here. */
  async follow() {
    if (!(await this.loadLayout(true)) || this.closed) return;
    if (this.draft.follow(this.layout)) {
      if (!this.draft.base) this.app.say("warning", t("rois.removed_elsewhere"));
      else if (!this.anchor.isDrawing) this.editor.roi = this.mine.roi;
    }
    this.show();
    if (this.chosen) void this.place(this.chosen);
  }

  /** Names of the recipe's ROIs about which something is true. @param {(facts: import("../rois.js").RoiFacts) => boolean} isSo */
  namesOf(isSo) {
    const recipe = this.key.recipe_id.toLowerCase();
    return (this.app.session.value.rois ?? []).filter((facts) => facts.recipe_id.toLowerCase() === recipe && isSo(facts)).map(({ name }) => name);
  }

  /** The recipe's ROIs, with the one that is drawn as it is here. @returns {LayoutRoi[]} */
  get rois() {
    const rois = this.layout.rois.map((roi) => (this.isMine(roi) ? this.mine : roi));
    return rois.some((roi) => this.isMine(roi)) ? rois : [...rois, this.mine];
  }

  /** @param {LayoutRoi} roi */
  isMine(roi) {
    return roiText({ ...roi, recipe_id: this.key.recipe_id }) === roiText(this.key);
  }

  show() {
    const { list } = this.set;
    const { mayChange } = this.app;
    this.showScale();
    this.drop.hidden = list.length > 0;
    this.work.hidden = this.stripPanel.hidden = list.length === 0;
    if (this.name.value.trim() !== this.mine.name) this.name.value = this.mine.name;
    this.name.disabled = !mayChange;
    this.crop.show(this.mine.roi, mayChange);
    this.files.show();
    this.editor.inert = !mayChange; // what is drawn here would be stored nowhere
    fill(this.stripTitle, t("roi.strip", { n: list.length }));
    this.strip.update();
    if (this.mine.roi) this.strip.show(this.mine.roi);
    this.list.show(this.rois, this.mine, mayChange);
    this.anchor.show(this.places.anchor, this.places.tally, mayChange);
    this.showOthers();
    this.showNotices();
    if (list.length && !this.chosen) void this.choose(this.firstFitting());
  }

  /** All ROIs of a recipe have one scale. */
  showScale() {
    const locked = lockedScale(this.app.session.value.rois, this.key.recipe_id);
    const holding = locked === null ? [] : this.namesOf(({ n_ok, n_ng, fitted }) => n_ok + n_ng > 0 || fitted);
    if (locked !== null && this.mine.mm_per_px !== locked) this.edit({ mm_per_px: locked });
    this.scale.show(this.mine.mm_per_px, this.rois.map(({ name }) => name), locked === null ? [] : holding.length ? holding : [this.key.recipe_id], this.app.mayChange);
  }

  /** The other ROIs and the anchor, on the picture. */
  showOthers() {
    const { isDrawing } = this.anchor;
    const others = this.rois.filter((roi) => roi.roi && (isDrawing || !this.isMine(roi)));
    const drawn = others.map(({ roi_id, name, roi, enabled }) => ({ id: roi_id, name, roi, kind: enabled === false ? "off" : undefined }));
    const { anchor } = this.places;
    if (anchor && !isDrawing) drawn.push({ id: "", name: t("anchor.title"), roi: rectOf(anchor), kind: "anchor" });
    const text = JSON.stringify(drawn);
    if (text === this.othersShown) return;
    this.othersShown = text;
    this.editor.others = drawn;
  }

  firstFitting() {
    const size = this.mine.picture ?? usualSize(this.set.list);
    return this.set.list.find((picture) => picture.width === size?.width && picture.height === size.height) ?? this.set.list[0];
  }

  /** @param {KeptPicture} picture */
  async choose(picture) {
    this.chosen = picture;
    this.strip.choose(picture);
    const opened = await this.set.open(picture);
    if (this.closed || this.chosen !== picture) return;
    this.editor.picture = opened;
    await this.place(picture);
    if (this.anchor.isDrawing || this.chosen !== picture) return;
    if (this.mine.roi) this.editor.roi = this.mine.roi;
    else this.draw(this.firstRoi(picture));
  }

  /** Show the picture as if its part had not moved. @param {KeptPicture} picture */
  async place(picture) {
    const { anchor } = this.places;
    if (anchor && !this.places.known.has(picture.file)) fill(this.where, t("anchor.looking"));
    const found = await this.places.look(picture);
    if (this.closed || this.chosen !== picture) return;
    const placement = found?.doubt === null ? found.placement : null;
    this.editor.placement = anchor && placement ? { cx: anchor.cx, cy: anchor.cy, ...placement } : null;
    fill(this.where, placement ? toldOf(placement) : (found?.doubt ?? ""));
  }

  foundPlace() {
    clearTimeout(this.soon);
    this.soon = setTimeout(() => {
      if (this.closed) return;
      this.anchor.show(this.places.anchor, this.places.tally, this.app.mayChange);
      this.showNotices();
    }, 200);
  }

  /** A whole picture alone, a part of its middle beside other ROIs. @param {KeptPicture} picture @returns {Roi} */
  firstRoi(picture) {
    const whole = wholeOf(picture);
    if (!this.rois.some((roi) => roi.roi)) return whole;
    return pushedInside({ ...whole, w: whole.w / 4, h: whole.h / 4, r: whole.r / 4, r_inner: whole.r / 8 }, picture);
  }

  /** @param {Roi} roi of the editor */
  changed(roi) {
    if (this.anchor.isDrawing) this.anchor.drawn(roi);
    else this.draw(cutAs(roi, this.mine.roi?.crop)); // how it is cut stays as it is
  }

  /** @param {Roi} roi */
  draw(roi) {
    const picture = this.chosen ? { width: this.chosen.width, height: this.chosen.height } : this.mine.picture;
    this.editor.roi = roi;
    this.strip.show(roi);
    this.edit({ roi, picture });
  }

  /** @param {Roi | null} rectangle */
  drawAnchor(rectangle) {
    this.editor.plain = rectangle !== null;
    this.editor.roi = rectangle ?? this.mine.roi;
    this.show();
  }

  async reference() {
    if (!this.chosen) return null;
    const [picture, place] = await Promise.all([this.set.open(this.chosen), this.places.look(this.chosen)]);
    return { picture, placement: place && place.doubt === null ? place.placement : null };
  }

  /** @param {number} mm_per_px */
  takeScale(mm_per_px) {
    if (this.scale.isLocked) this.app.say("warning", t("roi.scale_locked", { recipe: this.key.recipe_id, names: "" }));
    else this.scale.want(mm_per_px);
  }

  /** @param {number} mm_per_px */
  async setScale(mm_per_px) {
    this.edit({ mm_per_px });
    await this.changes.scale(mm_per_px);
    this.app.say("done", t("roi.scale_measured", { mm_per_px: number(mm_per_px) }));
  }

  /** @param {Partial<LayoutRoi>} change */
  edit(change) {
    if (!this.app.mayChange) return;
    this.draft.edit(change);
    this.list.show(this.rois, this.mine, true);
    this.showNotices();
  }

  /** @param {boolean} enabled */
  enable(enabled) {
    this.edit({ enabled });
    this.showOthers();
  }

  /** @param {LayoutRoi | null} theirs */
  showConflict(theirs) {
    const settle = async (/** @type {LayoutRoi} */ mine) => {
      fill(this.conflict);
      await this.draft.settle(theirs, mine);
      this.editor.roi = mine.roi;
      this.show();
    };
    fill(this.conflict, conflictNotice(theirs, () => void settle(this.mine), (other) => void settle(other)));
  }

  showNotices() {
    keepFocus(this.node, () => fill(this.notices, noticesOf(this.set.list, this.mine, this.places.anchor, (picture) => this.problemOf(picture))));
    this.strip.mark();
  }

  /** @param {KeptPicture} picture */
  problemOf(picture) {
    const { roi, picture: size } = this.mine;
    if (!size) return null;
    if (picture.width !== size.width || picture.height !== size.height)
      return t("roi.other_size", { width: picture.width, height: picture.height, usual_width: size.width, usual_height: size.height });
    return this.places.doubtAbout(picture) ?? (roi && roi.crop !== "gui" && beyond(this.places.roiIn(roi, picture), picture) > 0 ? t("roi.outside") : null);
  }

  /** @param {import("../ingest.js").Found[]} found */
  async take(found) {
    await this.ready; // what the layout has comes before what is drawn
    const isNew = await takePictures(this.app, this.set, found, (text) => fill(this.status, text));
    this.draft.tell();
    if (this.closed) return;
    const isFirst = !this.drop.hidden;
    this.show();
    if (isFirst && isNew) this.editor.querySelector(".roi-stage")?.focus({ preventScroll: true });
  }

  close() {
    this.closed = true;
    clearInterval(this.timer);
    void this.draft.save();
    this.strip.close();
    this.set.close();
  }
}
