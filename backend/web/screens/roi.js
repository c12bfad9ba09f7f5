// @ts-check
import { h } from "../dom.js";
import { t } from "../texts.js";

/** @returns {import("../main.js").Screen} */
export default function screen() {
  return { node: h("section.screen", {}, h("h1", {}, t("nav.roi"))) };
}
