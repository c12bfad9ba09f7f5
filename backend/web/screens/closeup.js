// @ts-check
/** One sample as large as the screen allows, to decide by. */
import { fill, h, icon } from "../dom.js";
import { keys } from "../keys.js";
import { t } from "../texts.js";

/** @typedef {import("../samples.js").Sample} Sample */

/**
 * @param {Sample} first
 * @param {object} how
 * @param {(sample: Sample) => Promise<string>} how.urlOf
 * @param {(sample: Sample, by: number) => Sample | undefined} how.next the sample beside it
 * @param {((sample: Sample, label: "ok" | "ng" | null) => void) | null} how.label null: nothing may be changed
 * @param {(sample: Sample) => void} how.onClose with the one that was looked at last
 */
export function closeUp(first, { urlOf, next, label, onClose }) {
  let shown = first;
  const picture = h("div.closeup-picture");
  const name = h("p.closeup-name");
  const good = h("button.is-good", { onclick: () => mark("ok") }, icon("check"), t("samples.good"));
  const bad = h("button.is-bad", { onclick: () => mark("ng") }, icon("cross"), t("samples.bad"));
  const onKey = keys({
    ArrowLeft: () => step(-1),
    ArrowRight: () => step(1),
    o: () => mark("ok"),
    n: () => mark("ng"),
    u: () => mark(null),
  });
  const dialog = h(
    "dialog.closeup",
    { "aria-label": t("samples.closeup"), onkeydown: onKey, onclose: close },
    h(
      "div.row.middle",
      {},
      h("button.icon-button", { "aria-label": t("samples.before"), onclick: () => step(-1) }, icon("left")),
      h("button.icon-button", { "aria-label": t("samples.after"), onclick: () => step(1) }, icon("right")),
      name,
      h("span.spacer"),
      label ? [good, bad] : null,
      h("button.icon-button", { "aria-label": t("close"), onclick: () => dialog.close() }, icon("cross")),
    ),
    picture,
  );

  async function show() {
    const sample = shown;
    fill(name, sample.name);
    good.setAttribute("aria-pressed", String(sample.label === "ok"));
    bad.setAttribute("aria-pressed", String(sample.label === "ng"));
    const src = await urlOf(sample);
    if (sample === shown) fill(picture, h("img", { src, alt: sample.name }));
  }

  /** @param {"ok" | "ng" | null} as */
  function mark(as) {
    if (!label) return;
    label(shown, as);
    void show();
  }

  /** @param {number} by */
  function step(by) {
    shown = next(shown, by) ?? shown;
    void show();
  }

  function close() {
    dialog.remove();
    onClose(shown);
  }

  document.body.append(dialog);
  dialog.showModal();
  void show();
}
