// @ts-check
/** Why: the defect beside the good patch that comes nearest to it. */
import { call } from "./api.js";
import { fill, h, icon, keepFocus } from "./dom.js";
import { messageOf, score, t } from "./texts.js";

const MOST = 4;

export class ExplainPanel {
  /**
   * @param {import("./main.js").App} app
   * @param {{mark: (place: {x: number, y: number} | null) => void}} view of the part on the screen
   * @param {() => FormData | null} question about the part on the screen; null: it has no verdict
   */
  constructor(app, view, question) {
    this.app = app;
    this.view = view;
    this.question = question;
    this.button = h("button", { onclick: () => void this.ask(), "aria-keyshortcuts": "W" }, t("explain.why"));
    this.content = h("div.reasons");
    this.node = h(
      "section.panel",
      { hidden: true, "aria-live": "polite" },
      h("div.panel-head", {}, h("h2", {}, t("explain.why")), h("p.hint", {}, t("explain.hint")), h("span.spacer"),
        h("button.icon-button", { "aria-label": t("explain.close"), onclick: () => this.close() }, icon("cross"))),
      this.content,
    );
    this.asked = 0;
  }

  /** @param {number} [x] pixel of the crop; without one: the worst places @param {number} [y] */
  async ask(x, y) {
    const form = this.question();
    if (!form) return;
    const number = ++this.asked;
    if (x !== undefined && y !== undefined) {
      form.append("x", String(x));
      form.append("y", String(y));
      this.view.mark({ x, y });
    }
    this.node.hidden = false;
    keepFocus(this.node, () => fill(this.content, h("p.muted", {}, t("explain.asking"))));
    try {
      const { reasons } = await call("explain", { form });
      if (number !== this.asked) return;
      fill(this.content, reasons.slice(0, MOST).map((/** @type {any} */ reason) => this.reason(reason)));
      this.node.scrollIntoView({ block: "nearest" });
    } catch (problem) {
      if (number === this.asked) this.close();
      this.app.say("error", messageOf(problem));
    }
  }

  /** @param {any} reason of `/explain` */
  reason({ x, y, distance, good, picture_png_base64 }) {
    const name = good ? (good.uploaded_as ?? good.filename) : null;
    return h(
      "figure.reason",
      {},
      picture_png_base64 ? h("img", { src: `data:image/png;base64,${picture_png_base64}`, alt: name ? t("explain.picture", { name }) : "" }) : null,
      h("figcaption", {}, name ? t("explain.reason", { x, y, distance: score(distance), name }) : t("explain.reason_alone", { x, y, distance: score(distance) })),
      h("button", { onclick: () => this.view.mark({ x, y }) }, t("explain.show")),
    );
  }

  close() {
    this.asked++;
    const hadFocus = this.node.contains(document.activeElement);
    this.node.hidden = true;
    fill(this.content);
    this.view.mark(null);
    if (hadFocus) this.button.focus({ preventScroll: true });
  }
}
