// @ts-check
/** The way from and to the desktop GUI's layouts: two buttons, and below them the panel of the one that was pressed. */
import { fill, h, icon } from "./dom.js";
import { t } from "./texts.js";

/** @typedef {import("./main.js").App} App */
/** @typedef {import("./pixels/roi.js").Roi} Roi */

/**
 * @param {App} app
 * @param {() => string} recipeOf the one on the screen; empty: none
 * @param {(recipe: string) => void} onStored
 * @returns {{node: Element, show: () => void}} show: what may be done has changed
 */
export function guiFiles(app, recipeOf, onStored) {
  const place = h("div");
  const input = h("input", { type: "file", multiple: true, accept: ".json,.png", hidden: true, onchange: () => void open() });
  const opening = h("button", { onclick: () => input.click() }, icon("folder"), t("gui.open"));
  const saving = h("button", { onclick: () => void save() }, icon("file"), t("gui.save"));

  async function open() {
    const files = [...input.files];
    input.value = ""; // the same files may be chosen again
    const { OpenPanel } = await import("./gui-open.js"); // few people need it
    const panel = new OpenPanel(app, { onStored, onClose: () => opening.focus() });
    fill(place, panel.node);
    await panel.add(files);
  }

  async function save() {
    const { SavePanel } = await import("./gui-save.js");
    const panel = new SavePanel(app, recipeOf(), () => saving.focus());
    fill(place, panel.node);
    await panel.load();
  }

  const node = h("div.gui-files", {}, h("div.row", {}, opening, saving), input, place);
  return {
    node,
    show() {
      opening.hidden = !app.mayChange;
      saving.hidden = !app.session.value.rois?.length;
      node.hidden = opening.hidden && saving.hidden;
    },
  };
}

/**
 * The switch between the console's crop and the desktop GUI's.
 * @param {(crop: Roi["crop"]) => void} onChange
 * @returns {{node: Element, show: (roi: Roi | null, mayChange: boolean) => void}}
 */
export function cropChoice(onChange) {
  const box = h("input", { type: "checkbox", id: "gui-crop", onchange: () => onChange(box.checked ? "gui" : undefined), "aria-describedby": "gui-crop-hint" });
  const node = h("div", {}, h("label.inline", { for: "gui-crop" }, box, t("gui.crop")), h("p.hint", { id: "gui-crop-hint" }, t("gui.crop_hint")));
  return {
    node,
    show(roi, mayChange) {
      box.checked = roi?.crop === "gui";
      box.disabled = !roi || !mayChange;
    },
  };
}
