// @ts-check
/** Open a layout of the desktop GUI: files in, what they give on the screen, and stored only when a person says so. */
import { send } from "./api.js";
import { field, fill, h } from "./dom.js";
import { fittedOn } from "./guard.js";
import { GuiLayoutError, isGuiLayout, readObject, readGuiLayout, ROLE, scaleIn } from "./gui-layout.js";
import { LayoutConflict, loadLayout, roiIn, writeLayout } from "./layout.js";
import { lockedScale } from "./rois.js";
import { roiText } from "./router.js";
import { messageOf, t, written } from "./texts.js";
import "./texts-later.js";

/** @typedef {import("./main.js").App} App */
/** @typedef {import("./gui-layout.js").Json} Json */
/** @typedef {import("./gui-layout.js").GuiLayout} GuiLayout */
/** @typedef {import("./layout.js").LayoutRoi} LayoutRoi */
/** @typedef {1 | 2} Master */
/** @typedef {{layout: {name: string, content: Json} | null, scale: number | null, masters: Map<Master, File>}} Chosen what a person chose */
/** @typedef {{mine: LayoutRoi, theirs: LayoutRoi | null, take: boolean}} Row theirs: what the recipe has of it */

const MOST_BYTES = 16 * 1024 * 1024;

/**
 * Sort files by what they are.
 * @param {Iterable<File>} files
 * @param {Chosen} chosen what was chosen before
 * @returns {Promise<Chosen>}
 * @throws {GuiLayoutError}
 */
async function sorted(files, chosen) {
  /** @type {Chosen} */
  const found = { ...chosen, masters: new Map(chosen.masters) };
  /** @type {string[]} */
  const layouts = [];
  /** @type {File[]} */
  const pictures = [];
  for (const file of files) {
    if (/\.png$/i.test(file.name)) {
      pictures.push(file);
      continue;
    }
    const content = readObject(await textOf(file), file.name);
    const scale = scaleIn(content);
    if (scale !== null) found.scale = scale; // a preset has ROIs, too
    else if (isGuiLayout(content) || content.format) {
      layouts.push(file.name);
      found.layout = { name: file.name, content };
    } else throw new GuiLayoutError(t("gui.stray", { name: file.name }));
  }
  if (layouts.length > 1) throw new GuiLayoutError(t("gui.several", { names: layouts.join(", ") }));
  if (!found.layout) throw new GuiLayoutError(t("gui.nothing"));
  for (const picture of pictures) found.masters.set(masterOf(picture.name, found.layout.content), picture);
  return found;
}

/** @param {File} file */
async function textOf(file) {
  if (file.size > MOST_BYTES) throw new GuiLayoutError(t("gui.huge", { name: file.name, bytes: file.size }));
  try {
    return await file.text();
  } catch {
    throw new GuiLayoutError(t("drop.unreadable", { name: file.name }));
  }
}

/** Of which master a file is the picture. @param {string} name @param {Json} layout @returns {Master} */
function masterOf(name, layout) {
  for (const master of /** @type {Master[]} */ ([1, 2])) {
    const path = layout[`Master${master}PatternImagePath`];
    if (typeof path === "string" && path.split(/[\\/]/).at(-1)?.toLowerCase() === name.toLowerCase()) return master;
  }
  const found = /master[\s_-]?([12])/i.exec(name);
  if (!found) throw new GuiLayoutError(t("gui.unnamed_master", { name }));
  return found[1] === "1" ? 1 : 2;
}

export class OpenPanel {
  /**
   * @param {App} app
   * @param {{onStored: (recipe: string) => void, onClose: () => void}} hooks
   */
  constructor(app, hooks) {
    this.app = app;
    this.hooks = hooks;
    /** @type {Chosen} */
    this.chosen = { layout: null, scale: null, masters: new Map() };
    /** @type {GuiLayout | null} */
    this.read = null;
    /** @type {Row[]} */
    this.rows = [];
    this.asked = 0;
    this.recipe = h("input", { id: "gui-recipe", required: true, maxlength: 60, pattern: "[^\\u0000-\\u001f\\u007f]{1,60}", autocomplete: "off", onchange: () => void this.look() });
    this.scale = h("input", { id: "gui-scale", type: "number", min: 0.000001, max: 1000000, step: "any", inputmode: "decimal", required: true, onchange: () => this.takeScale() });
    this.more = h("input", { type: "file", multiple: true, accept: ".json,.png", hidden: true, onchange: () => void this.add(this.more.files) });
    this.title = h("h2", {});
    this.table = h("div.scrolls");
    this.notes = h("div");
    this.problem = h("div", { role: "alert" });
    this.store = h("button.primary", { type: "submit" }, t("gui.store"));
    this.node = h(
      "form.panel",
      {
        hidden: true,
        "aria-label": t("gui.open"),
        /** @param {Event} event */
        onsubmit: (event) => {
          event.preventDefault();
          void this.save();
        },
      },
      this.title,
      h("p", {}, t("gui.intro")),
      h("div.notice", {}, h("p", {}, t("gui.proof"))),
      h(
        "div.row",
        {},
        field(t("line.recipe"), this.recipe),
        field(t("roi.scale"), this.scale),
        h("button", { onclick: () => this.more.click() }, t("gui.add")),
      ),
      h("p.hint", {}, t("gui.recipe_hint"), " ", t("gui.scale_hint")),
      this.more,
      this.table,
      this.notes,
      this.problem,
      h("div.row", {}, this.store, h("button", { onclick: () => this.close() }, t("cancel"))),
    );
  }

  /** @param {Iterable<File> | null} files */
  async add(files) {
    if (!files) return;
    const isFirst = this.node.hidden;
    try {
      const chosen = await sorted([...files], this.chosen);
      this.more.value = "";
      const { name, content } = /** @type {{name: string, content: Json}} */ (chosen.layout);
      const read = readGuiLayout(content, name, chosen.scale ?? 1);
      const isOther = name !== this.read?.file;
      [this.chosen, this.read] = [chosen, read];
      if (isOther) this.recipe.value = read.recipe;
    } catch (problem) {
      if (!(problem instanceof GuiLayoutError)) throw problem;
      this.app.say("error", problem.message);
      return;
    }
    this.node.hidden = false;
    await this.look();
    if (isFirst) this.recipe.focus({ preventScroll: false });
  }

  /** Compare with what the recipe has. */
  async look() {
    const { read } = this;
    const recipe = this.recipe.value.trim();
    if (!read) return;
    const asked = ++this.asked;
    fill(this.title, t("gui.open"), ": ", read.file);
    fill(this.problem);
    this.store.disabled = true;
    if (!recipe || recipe.toLowerCase() === "last") {
      fill(this.problem, h("div.notice.bad", {}, h("p", {}, t("new.reserved"))));
      return;
    }
    const [{ content }, rois] = await Promise.all([loadLayout(recipe), this.app.refresh(recipe)]);
    const locked = lockedScale(rois, recipe);
    const scale = locked ?? this.chosen.scale ?? (this.scale.valueAsNumber > 0 ? this.scale.valueAsNumber : 1);
    const rows = [];
    for (const { roi, fits } of read.places) {
      const key = { recipe_id: recipe, ...idsOf(roi) };
      const facts = rois.find((known) => roiText(known) === roiText(key));
      const isFitted = fits && facts !== undefined && facts.fitted && !facts.borrowed;
      const isGuis = isFitted && roi.roi !== null && (await fittedOn(key, roi.roi, content.anchor ?? null)) === "unknown";
      const cut = isGuis ? { ...roi, roi: { .../** @type {import("./pixels/roi.js").Roi} */ (roi.roi), crop: /** @type {const} */ ("gui") } } : roi;
      rows.push({ mine: { ...cut, mm_per_px: scale }, theirs: roiIn(content, key), take: false });
    }
    if (asked !== this.asked) return; // for another recipe meanwhile
    this.scale.value = String(scale);
    this.scale.disabled = locked !== null;
    this.rows = rows;
    this.store.disabled = !this.app.mayChange || rows.length === 0;
    this.show();
  }

  takeScale() {
    const scale = this.scale.valueAsNumber;
    if (!(scale > 0)) return;
    this.chosen.scale = scale;
    for (const row of this.rows) row.mine = { ...row.mine, mm_per_px: scale };
    this.show();
  }

  show() {
    const heads = [t("nav.roi"), t("gui.column.place"), t("gui.column.cut"), t("gui.column.layout")].map((head) => h("th", { scope: "col" }, head));
    fill(this.table, h("table", {}, h("thead", {}, h("tr", {}, heads)), h("tbody", {}, this.rows.map((row) => this.rowOf(row)))));
    const notes = [...(this.read?.notes ?? []), ...this.scaleNotes()];
    const kept = [...this.chosen.masters].map(([n, { name }]) => t("gui.master_kept", { n, name }));
    fill(
      this.notes,
      h("h3", {}, t(notes.length ? "gui.notes" : "gui.notes_none")),
      h("ul", {}, notes.map((note) => h("li", {}, note))),
      kept.map((text) => h("p", {}, text)),
    );
  }

  scaleNotes() {
    const [stored, wanted] = [this.scale.valueAsNumber, this.chosen.scale];
    if (!this.scale.disabled || wanted === null || wanted === stored) return [];
    return [t("gui.scale_stays", { stored, wanted })];
  }

  /** @param {Row} row */
  rowOf(row) {
    const { mine } = row;
    const roi = /** @type {import("./pixels/roi.js").Roi} */ (mine.roi);
    const size = roi.kind === "rect" ? `${hundredths(roi.w)} × ${hundredths(roi.h)}` : `r ${hundredths(roi.r)}`;
    const place = t("gui.place", { kind: t(`editor.kind.${roi.kind}`), cx: hundredths(roi.cx), cy: hundredths(roi.cy), size, angle_deg: hundredths(roi.angle_deg) });
    return h(
      "tr",
      { "data-roi": mine.roi_id },
      h("th", { scope: "row" }, mine.name, h("div.muted", {}, `${ROLE} / ${mine.roi_id}`)),
      h("td", {}, place),
      h("td", {}, t(roi.crop === "gui" ? "gui.cut.gui" : "gui.cut.console")),
      h("td", {}, this.choiceOf(row)),
    );
  }

  /** @param {Row} row */
  choiceOf(row) {
    if (!row.theirs) return t("gui.state.new");
    if (isSame(row)) return t("gui.state.same");
    const choice = h(
      "select",
      { "aria-label": t("gui.state.differs", { name: row.theirs.name }), onchange: () => { row.take = choice.value === "take"; } },
      h("option", { value: "keep", selected: !row.take }, t("gui.state.keep")),
      h("option", { value: "take", selected: row.take }, t("gui.state.take")),
    );
    return [h("div", {}, t("gui.state.differs", { name: row.theirs.name })), choice];
  }

  async save() {
    const { read, rows } = this;
    const recipe = this.recipe.value.trim();
    if (!read || this.store.disabled) return;
    this.store.disabled = true;
    try {
      for (const [master, file] of this.chosen.masters)
        await send("layout/picture", { method: "PUT", query: { recipe_id: recipe, name: `gui-master-${master}` }, blob: file });
      await writeLayout(recipe, (content) => this.merged(content, recipe));
    } catch (problem) {
      await this.refused(problem, recipe);
      return;
    }
    await this.app.refresh(recipe);
    this.app.say("done", t("gui.stored", { file: read.file, recipe }));
    this.close();
    this.hooks.onStored(rows.length ? recipe : "");
  }

  /** @param {import("./layout.js").Layout} content @param {string} recipe */
  merged(content, recipe) {
    const { read, rows } = this;
    let { rois } = content;
    for (const { mine, theirs, take } of rows) {
      const now = roiIn({ ...content, rois }, { recipe_id: recipe, ...idsOf(mine) });
      if (JSON.stringify(now) !== JSON.stringify(theirs)) throw new LayoutConflict(now);
      if (!now) rois = [...rois, mine];
      else if (take) rois = rois.map((roi) => (roi === now ? { ...now, ...mine } : roi));
    }
    const { file, original } = /** @type {GuiLayout} */ (read);
    const merged = { ...content, rois, gui_layout: { file, layout: original } };
    const [bytes, most] = [new Blob([JSON.stringify(merged)]).size, this.app.session.value.limits.max_layout_bytes];
    if (bytes > most) throw new GuiLayoutError(t("gui.too_large", { bytes, most }));
    return merged;
  }

  /** @param {unknown} problem @param {string} recipe */
  async refused(problem, recipe) {
    const isConflict = problem instanceof LayoutConflict;
    if (isConflict) await this.look();
    const text = isConflict ? t("gui.changed", { recipe }) : messageOf(problem);
    fill(this.problem, h("div.notice.bad", {}, h("p", {}, text)));
    this.store.disabled = false;
  }

  close() {
    this.asked++;
    this.node.remove();
    this.hooks.onClose();
  }
}

/** @param {LayoutRoi} roi */
function idsOf({ role_id, roi_id, model_key }) {
  return { role_id, roi_id, model_key };
}

/** @param {number} value */
const hundredths = (value) => written(Math.round(value * 100) / 100);

/** Whether the recipe has the ROI as the file does. @param {Row} row */
function isSame({ mine, theirs }) {
  return JSON.stringify({ ...theirs, ...mine }) === JSON.stringify(theirs);
}
