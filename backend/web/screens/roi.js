// @ts-check
/** ROI: pictures in, a ROI drawn on one of them, its crop from all of them below. */
import { fill, h, icon, keepFocus } from "../dom.js";
import { dropZone } from "../ingest.js";
import { cropChoice } from "../gui-crop-choice.js";
import { guiFiles } from "../gui-files.js";
import { LayoutConflict, loadLayout, roiIn, saveRoi } from "../layout.js";
import { selfTest } from "../pixels/picture.js";
import "../pixels/roi-editor.js";
import { beyond, cutAs } from "../pixels/roi.js";
import { cutText, PictureSet, usualSize } from "../pictures.js";
import { lockedScale } from "../rois.js";
import { hashOf, nameKey, roiText } from "../router.js";
import { messageOf, number, t } from "../texts.js";
import { cropStrip } from "./strip.js";

/** @typedef {import("../main.js").App} App */
/** @typedef {import("../api.js").RoiKey} RoiKey */
/** @typedef {import("../layout.js").LayoutRoi} LayoutRoi */
/** @typedef {import("../keep.js").KeptPicture} KeptPicture */
/** @typedef {import("../pixels/roi.js").Roi} Roi */

const SAVE_AFTER_MS = 700;
const MOST_NAMED = 5;

/**
 * @param {App} app
 * @param {RoiKey | null} key
 * @returns {import("../main.js").Screen}
 */
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
    this.draftKey = `draft of ${roiText(key)}`;
    this.set = new PictureSet(key);
    /** @type {LayoutRoi | null} as the service has it */
    this.base = null;
    /** @type {LayoutRoi} as it is here */
    this.mine = fresh(key);
    /** @type {import("../anchor.js").Anchor | null} of the recipe */
    this.anchor = null;
    /** @type {KeptPicture | null} */
    this.chosen = null;
    this.closed = false;
    this.timer = 0;

    this.status = h("span.muted", { role: "status" });
    this.notices = h("div.notices");
    this.name = h("input", { id: "roi-name", maxlength: 60, oninput: () => this.edit({ name: this.name.value.trim() || key.roi_id }) });
    this.scale = h("input", { id: "roi-scale", type: "number", min: 0.000001, max: 1000000, step: "any", inputmode: "decimal", oninput: () => this.editScale() });
    this.scaleHint = h("p.hint", {}, t("roi.scale_hint"));
    this.crop = cropChoice((crop) => this.cutAs(crop));
    this.files = guiFiles(app, () => key.recipe_id, () => app.go("line", null));
    this.editor = /** @type {any} */ (document.createElement("roi-editor"));
    this.editor.addEventListener("roi-change", (/** @type {CustomEvent<Roi>} */ event) => this.draw(event.detail));
    this.editor.addEventListener("scale-measured", (/** @type {CustomEvent} */ event) => this.takeScale(event.detail.mm_per_px));
    this.strip = cropStrip(this.set, {
      onChoose: (picture) => void this.choose(picture),
      titleOf: (picture) => t("roi.cell", { name: picture.name }),
      problemOf: (picture) => this.problemOf(picture),
    });
    this.stripTitle = h("h2", {}, "");
    this.next = h("a.button.primary", { href: hashOf("samples", key) }, t(app.mayChange ? "roi.next" : "roi.next_look"), icon("right"));
    this.work = h(
      "div.roi-work",
      { hidden: true },
      h("div.panel.roi-picture", {}, this.editor),
      h(
        "div.roi-side",
        {},
        h(
          "div.panel",
          {},
          h("label.field", { for: "roi-name" }, h("span", {}, t("roi.name")), this.name),
          h("label.field", { for: "roi-scale" }, h("span", {}, t("roi.scale")), this.scale),
          this.scaleHint,
          this.crop.node,
          this.next,
        ),
        dropZone((found) => void this.add(found), { text: t("roi.drop_more"), compact: true }),
      ),
    );
    this.stripPanel = h("div.panel", { hidden: true }, h("div.panel-head", {}, this.stripTitle, h("p.hint", {}, t("roi.strip_hint"))), this.strip.node);
    this.drop = dropZone((found) => void this.add(found), { text: t("roi.drop") });
    this.drop.hidden = true;
    this.node = h(
      "section.screen",
      {},
      h("header.screen-head", {}, h("h1", {}, t("roi.title")), this.status),
      this.notices,
      this.drop,
      this.work,
      this.stripPanel,
      this.files.node,
    );
  }

  async open() {
    const test = await selfTest();
    if (this.closed) return;
    if (!test.ok) {
      fill(this.notices, h("div.notice.bad", { role: "alert" }, t("roi.self_test", { reason: test.reason ?? "" })));
      return;
    }
    await Promise.all([this.set.load(), this.loadLayout(), this.app.refresh(this.key.recipe_id)]);
    if (this.closed) return;
    this.show();
  }

  async loadLayout() {
    const { content } = await loadLayout(this.key.recipe_id);
    this.base = roiIn(content, this.key);
    this.anchor = content.anchor ?? null;
    this.mine = this.base ?? fresh(this.key);
    const draft = localStorage.getItem(this.draftKey);
    if (!draft) {
      this.showSaved();
      return;
    }
    const { base, mine } = JSON.parse(draft);
    this.mine = mine; // what was drawn here and did not reach the service goes on from where it was
    this.base = base;
    this.saveSoon();
  }

  /** That the service has it as it is here, where that is so. */
  showSaved() {
    if (!this.app.mayChange) fill(this.status, t("roi.look_only"));
    else if (!localStorage.getItem(this.draftKey)) fill(this.status, this.base ? t("roi.saved") : null);
  }

  /** All ROIs of a recipe have one scale. */
  takeLockedScale() {
    const locked = lockedScale(this.app.session.value.rois, this.key.recipe_id);
    this.scale.disabled = locked !== null || !this.app.mayChange;
    if (locked === null) return;
    fill(this.scaleHint, t("roi.scale_locked", { recipe: this.key.recipe_id }));
    if (this.mine.mm_per_px !== locked) this.edit({ mm_per_px: locked });
  }

  show() {
    const { list } = this.set;
    this.takeLockedScale();
    this.drop.hidden = list.length > 0;
    this.work.hidden = this.stripPanel.hidden = list.length === 0;
    if (this.name.value.trim() !== this.mine.name) this.name.value = this.mine.name;
    this.scale.value = String(this.mine.mm_per_px);
    this.name.disabled = !this.app.mayChange;
    this.crop.show(this.mine.roi, this.app.mayChange);
    this.files.show();
    this.editor.inert = !this.app.mayChange; // what is drawn here would be stored nowhere
    fill(this.stripTitle, t("roi.strip", { n: list.length }));
    this.strip.update();
    if (this.mine.roi) this.strip.show(this.mine.roi);
    this.showNotices();
    if (list.length && !this.chosen) void this.choose(this.firstFitting());
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
    if (this.mine.roi) this.editor.roi = this.mine.roi;
    else this.draw(this.editor.roi);
  }

  /** @param {Roi["crop"]} crop */
  cutAs(crop) {
    const { roi } = this.mine;
    if (!roi) return;
    this.strip.show(cutAs(roi, crop));
    this.edit({ roi: cutAs(roi, crop) });
  }

  /** @param {Roi} place how it is cut stays as it is */
  draw(place) {
    const roi = cutAs(place, this.mine.roi?.crop);
    const picture = this.chosen ? { width: this.chosen.width, height: this.chosen.height } : this.mine.picture;
    this.strip.show(roi);
    this.edit({ roi, picture });
  }

  editScale() {
    const value = this.scale.valueAsNumber;
    if (value > 0 && this.scale.validity.valid) this.edit({ mm_per_px: value });
  }

  /** @param {number} mm_per_px */
  takeScale(mm_per_px) {
    if (this.scale.disabled) {
      this.app.say("warning", t("roi.scale_locked", { recipe: this.key.recipe_id }));
      return;
    }
    this.scale.value = String(mm_per_px);
    this.edit({ mm_per_px });
    this.app.say("done", t("roi.scale_measured", { mm_per_px: number(mm_per_px) }));
  }

  /** @param {Partial<LayoutRoi>} change */
  edit(change) {
    this.mine = { ...this.mine, ...change };
    if (!this.app.mayChange) return;
    localStorage.setItem(this.draftKey, JSON.stringify({ base: this.base, mine: this.mine }));
    this.showNotices();
    this.saveSoon();
  }

  saveSoon() {
    clearTimeout(this.timer);
    fill(this.status, t("roi.saving"));
    this.timer = setTimeout(() => void this.save(), SAVE_AFTER_MS);
  }

  async save() {
    clearTimeout(this.timer);
    if (!localStorage.getItem(this.draftKey)) return;
    const sent = this.mine;
    try {
      await saveRoi(this.key.recipe_id, sent, this.base);
    } catch (problem) {
      if (problem instanceof LayoutConflict) this.showConflict(problem.theirs);
      else {
        fill(this.status, t("roi.not_saved"));
        this.app.say("error", messageOf(problem));
      }
      return;
    }
    this.base = sent;
    if (this.mine === sent) {
      localStorage.removeItem(this.draftKey);
      this.showSaved();
    } else this.saveSoon();
    void this.app.refresh(this.key.recipe_id);
  }

  /** @param {LayoutRoi | null} theirs */
  showConflict(theirs) {
    fill(this.status, t("roi.not_saved"));
    const settle = (/** @type {LayoutRoi} */ mine) => {
      this.base = theirs;
      this.mine = mine;
      this.editor.roi = mine.roi;
      if (mine.roi) this.strip.show(mine.roi);
      localStorage.setItem(this.draftKey, JSON.stringify({ base: theirs, mine }));
      this.show();
      void this.save();
    };
    fill(
      this.notices,
      h(
        "div.notice.bad",
        { role: "alert" },
        h("p", {}, t("roi.conflict")),
        h("button", { onclick: () => settle(this.mine) }, t("roi.conflict_mine")),
        theirs ? h("button", { onclick: () => settle(theirs) }, t("roi.conflict_theirs")) : null,
      ),
    );
  }

  showNotices() {
    /** @type {Element[]} */
    const notices = [];
    const { roi } = this.mine;
    const problems = this.set.list.filter((picture) => this.problemOf(picture) !== null);
    if (problems.length) {
      const names = problems.slice(0, MOST_NAMED).map((picture) => `${picture.name} (${this.problemOf(picture)})`);
      notices.push(h("div.notice", {}, t("roi.problems", { n: problems.length, names: names.join(", ") })));
    }
    const before = roi && this.set.list.filter((picture) => picture.stored && picture.stored.cut !== cutText(roi, this.anchor)).length;
    if (before) notices.push(h("div.notice", {}, h("p", {}, t("roi.stored_before", { n: before }))));
    keepFocus(this.node, () => fill(this.notices, notices));
    this.strip.mark();
  }

  /** @param {KeptPicture} picture */
  problemOf(picture) {
    const { roi, picture: size } = this.mine;
    if (!size) return null;
    if (picture.width !== size.width || picture.height !== size.height)
      return t("roi.other_size", { width: picture.width, height: picture.height, usual_width: size.width, usual_height: size.height });
    return roi && roi.crop !== "gui" && beyond(roi, picture) > 0 ? t("roi.outside") : null;
  }

  /** @param {import("../ingest.js").Found[]} found */
  async add(found) {
    if (!found.length) {
      this.app.say("warning", t("drop.nothing"));
      return;
    }
    const { added, known, refused } = await this.set.add(found, (done, total) => fill(this.status, t("drop.reading", { done: done + 1, total })));
    this.showSaved();
    if (added.length) this.app.say("done", t("drop.added", { n: added.length }));
    if (known) this.app.say("warning", t("drop.known", { n: known }));
    for (const { name, reason } of refused.slice(0, MOST_NAMED)) this.app.say("error", reason.includes(name) ? reason : `${name}: ${reason}`);
    if (refused.length > MOST_NAMED) this.app.say("error", t("drop.more_refused", { n: refused.length - MOST_NAMED }));
    if (this.closed) return;
    const isFirst = !this.drop.hidden;
    this.show();
    if (isFirst && added.length) this.editor.querySelector(".roi-stage")?.focus({ preventScroll: true });
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    void this.save();
    this.strip.close();
    this.set.close();
  }
}

/** @param {RoiKey} key @returns {LayoutRoi} */
function fresh(key) {
  const { role_id, roi_id, model_key } = key;
  const name = sessionStorage.getItem(nameKey(key)) ?? roi_id;
  return { role_id, roi_id, model_key, name, mm_per_px: 1, roi: null, picture: null };
}
