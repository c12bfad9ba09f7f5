// @ts-check
/** A ROI as it is drawn here: on its way to the layout, and kept in this browser until it is there. */
import { forgetText, keepText, keptText } from "../keep.js";
import { LayoutConflict, roiIn, saveRoi } from "../layout.js";
import { nameKey, roiText } from "../router.js";
import { messageOf, t } from "../texts.js";

/** @typedef {import("../api.js").RoiKey} RoiKey */
/** @typedef {import("../layout.js").LayoutRoi} LayoutRoi */
/** @typedef {import("../layout.js").Layout} Layout */

const SAVE_AFTER_MS = 700;

export class Draft {
  /**
   * @param {RoiKey} key
   * @param {object} on
   * @param {(text: string | null) => void} on.status
   * @param {(text: string) => void} on.failed
   * @param {(theirs: LayoutRoi | null) => void} on.conflict
   * @param {() => void} on.saved
   */
  constructor(key, on) {
    this.key = key;
    this.on = on;
    this.place = `draft of ${roiText(key)}`;
    /** @type {LayoutRoi | null} as the service has it */
    this.base = null;
    /** @type {LayoutRoi} as it is here */
    this.mine = fresh(key);
    this.timer = 0;
    /** @type {string | null} what this tab keeps in the browser until the service has it; another tab may keep there what it draws */
    this.kept = null;
    this.hasRoom = true;
  }

  /** Whether something of it is not in the service yet. */
  get isOpen() {
    return this.kept !== null;
  }

  keep() {
    this.kept = JSON.stringify({ base: this.base, mine: this.mine });
    this.hasRoom = keepText(this.place, this.kept);
    if (!this.hasRoom) addEventListener("beforeunload", stay);
  }

  /** Begin with what the service has, or with what was drawn here and did not reach it. @param {Layout} content */
  open(content) {
    this.base = roiIn(content, this.key);
    this.mine = this.base ?? fresh(this.key);
    const draft = keptText(this.place);
    if (!draft) return this.tell();
    this.kept = draft;
    const { base, mine } = JSON.parse(draft);
    this.mine = mine;
    this.base = base;
    this.saveSoon();
  }

  /**
   * Another station may have changed it. What is changed here as well, saving finds out.
   * @param {Layout} content
   * @returns {boolean} whether it is another one now
   */
  follow(content) {
    const theirs = roiIn(content, this.key);
    if (this.isOpen || JSON.stringify(theirs) === JSON.stringify(this.base)) return false;
    this.base = theirs;
    if (theirs) this.mine = theirs;
    return true;
  }

  /** That the service has it as it is here, where that is so. */
  tell() {
    if (!this.isOpen) this.on.status(this.base ? t("roi.saved") : null);
  }

  /** @param {Partial<LayoutRoi>} change */
  edit(change) {
    this.mine = { ...this.mine, ...change };
    this.keep();
    this.saveSoon();
  }

  /** After a conflict. @param {LayoutRoi | null} theirs @param {LayoutRoi} mine what shall count */
  async settle(theirs, mine) {
    this.base = theirs;
    this.mine = mine;
    this.keep();
    await this.save();
  }

  saveSoon() {
    clearTimeout(this.timer);
    this.on.status(t("roi.saving"));
    this.timer = setTimeout(() => void this.save(), SAVE_AFTER_MS);
  }

  async save() {
    clearTimeout(this.timer);
    if (!this.isOpen) return;
    const sent = this.mine;
    try {
      await saveRoi(this.key.recipe_id, sent, this.base);
    } catch (problem) {
      this.on.status(t(this.hasRoom ? "roi.not_saved" : "roi.not_kept"));
      if (problem instanceof LayoutConflict) this.on.conflict(problem.theirs);
      else this.on.failed(messageOf(problem));
      return;
    }
    this.base = sent;
    if (this.mine === sent) this.forget();
    else this.saveSoon();
    this.on.saved();
  }

  /** Nothing of it is to be stored any more. */
  forget() {
    clearTimeout(this.timer);
    if (keptText(this.place) === this.kept) forgetText(this.place);
    removeEventListener("beforeunload", stay);
    this.kept = null;
    this.tell();
  }
}

/** The browser asks before it leaves the page. @param {Event} event */
const stay = (event) => event.preventDefault();

/** @param {RoiKey} key @returns {LayoutRoi} */
function fresh(key) {
  const { role_id, roi_id, model_key } = key;
  const name = sessionStorage.getItem(nameKey(key)) ?? roi_id;
  return { role_id, roi_id, model_key, name, mm_per_px: 1, roi: null, picture: null };
}
