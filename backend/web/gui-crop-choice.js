// @ts-check
/** The switch between the console's crop and the desktop GUI's. */
import { h } from "./dom.js";
import { t } from "./texts.js";

/** @typedef {import("./pixels/roi.js").Roi} Roi */

/**
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
