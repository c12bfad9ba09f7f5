// @ts-check
/** What a person does to the ROIs of a recipe beside drawing: a new one, a copy, away with one, another scale. */
import { addRoi, removeRoi, saveScale } from "../layout.js";
import { pushedInside } from "../pixels/roi-edit.js";
import { messageOf, t } from "../texts.js";

/** @typedef {import("../main.js").App} App */
/** @typedef {import("../layout.js").LayoutRoi} LayoutRoi */

const COPY_BESIDE = 12;
const LONGEST_NAME = 60;

export class RecipeChanges {
  /**
   * @param {App} app
   * @param {string} recipe
   * @param {object} screen
   * @param {() => import("./roi-draft.js").Draft} screen.draft of the ROI that is drawn
   * @param {() => LayoutRoi[]} screen.rois
   * @param {() => Promise<void>} screen.follow show what is stored now
   */
  constructor(app, recipe, screen) {
    this.app = app;
    this.recipe = recipe;
    this.screen = screen;
  }

  /** @param {LayoutRoi} roi */
  go({ role_id, roi_id, model_key }) {
    this.app.go("roi", { recipe_id: this.recipe, role_id, roi_id, model_key });
  }

  /** @param {Pick<LayoutRoi, "roi" | "picture"> & {name?: string}} drawn */
  async add({ name = t("rois.new_name", { n: this.screen.rois().length + 1 }), ...drawn }) {
    const draft = this.screen.draft();
    const taken = new Set((this.app.session.value.rois ?? []).map(({ roi_id }) => roi_id));
    await draft.save();
    const added = await addRoi(this.recipe, { ...drawn, name, mm_per_px: draft.mine.mm_per_px }, taken);
    await Promise.all([this.screen.follow(), this.app.refresh(this.recipe)]);
    this.go(added);
  }

  async copy() {
    const { name, roi, picture } = this.screen.draft().mine;
    if (!roi || !picture) return;
    const beside = pushedInside({ ...roi, cx: roi.cx + COPY_BESIDE, cy: roi.cy + COPY_BESIDE }, picture);
    await this.add({ name: t("rois.copy_name", { name }).slice(0, LONGEST_NAME), roi: beside, picture });
  }

  async remove() {
    const draft = this.screen.draft();
    const { base } = draft;
    try {
      if (base) await removeRoi(this.recipe, base);
    } catch (problem) {
      this.app.say("error", messageOf(problem));
      return this.screen.follow();
    }
    draft.base = null;
    draft.forget();
    const next = this.screen.rois().find(({ roi_id }) => roi_id !== draft.key.roi_id);
    await this.app.refresh(this.recipe);
    if (next) this.go(next);
    else this.app.go("line", null);
  }

  /** @param {number} mm_per_px of all ROIs of the recipe */
  async scale(mm_per_px) {
    await this.screen.draft().save();
    await saveScale(this.recipe, mm_per_px);
    await this.screen.follow();
  }
}
