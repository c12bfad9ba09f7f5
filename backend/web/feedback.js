// @ts-check
/** What a person says about a part: first what it would change, then, if they still want to, the change. */
import { call } from "./api.js";
import { fill, h, icon, keepFocus } from "./dom.js";
import { messageOf, score, t } from "./texts.js";

export class FeedbackPanel {
  /**
   * @param {import("./main.js").App} app
   * @param {() => FormData | null} question about the part on the screen; null: it has no verdict
   * @param {() => void} onChanged the model or its threshold changed
   */
  constructor(app, question, onChanged) {
    this.app = app;
    this.question = question;
    this.onChanged = onChanged;
    this.asked = 0;
    this.good = h("button.is-good", { onclick: () => void this.ask("good") }, icon("check"), t("feedback.good"));
    this.bad = h("button.is-bad", { onclick: () => void this.ask("bad") }, icon("cross"), t("feedback.bad"));
    this.buttons = h("div.row.middle", { tabindex: -1 }, this.good, this.bad);
    this.content = h("div.feedback");
    this.node = h("section.panel", { hidden: true, "aria-live": "polite" }, this.content);
  }

  /** @param {boolean} hidden */
  set hidden(hidden) {
    this.buttons.hidden = hidden;
  }

  /** @param {boolean} disabled */
  set disabled(disabled) {
    this.good.disabled = this.bad.disabled = disabled;
  }

  /** @param {"good" | "bad"} verdict */
  async ask(verdict) {
    const number = ++this.asked;
    this.node.hidden = false;
    keepFocus(this.node, () => fill(this.content, h("p.muted", {}, t("feedback.asking"))));
    const reply = await this.send(verdict, true);
    if (!reply || number !== this.asked) return;
    const yes = h("button.primary", { onclick: () => void this.learn(verdict, yes) }, t(verdict === "good" ? "feedback.learn_good" : "feedback.learn_bad"));
    fill(
      this.content,
      h("h2", {}, t(verdict === "good" ? "feedback.title_good" : "feedback.title_bad")),
      reply.changed ? comparison(reply) : null,
      h("p", {}, toldOf(reply)),
      reply.warning ? h("div.notice", {}, h("p", {}, reply.warning)) : null,
      h("div.row", {}, reply.changed ? yes : null, h("button", { onclick: () => this.close() }, t(reply.changed ? "cancel" : "close"))),
    );
    this.node.scrollIntoView({ block: "nearest" });
    (reply.changed ? yes : this.content.querySelector("button")).focus({ preventScroll: true });
  }

  /** @param {"good" | "bad"} verdict @param {any} button */
  async learn(verdict, button) {
    keepFocus(this.node, () => { button.disabled = true; });
    const reply = await this.send(verdict, false);
    if (!reply) return;
    this.close();
    this.app.say("done", t("feedback.learned", { threshold: score(reply.after.threshold) }));
    this.onChanged();
  }

  /** @param {"good" | "bad"} verdict @param {boolean} dry_run */
  async send(verdict, dry_run) {
    const form = this.question();
    if (!form) {
      this.close();
      return null;
    }
    form.append("verdict", verdict);
    form.append("dry_run", String(dry_run));
    try {
      return await call("feedback", { form });
    } catch (problem) {
      this.close();
      this.app.say("error", messageOf(problem));
      return null;
    }
  }

  close() {
    this.asked++;
    const hadFocus = this.node.contains(document.activeElement);
    this.node.hidden = true;
    fill(this.content);
    if (hadFocus) this.buttons.focus({ preventScroll: true });
  }
}

/** What the service says of a change, without its word for an answer to a question. @param {any} reply of `/feedback` */
function toldOf({ text, changed }) {
  const told = text.replace(" Nothing was stored (dry_run).", "");
  return changed ? `${told} ${t("feedback.not_yet")}` : told;
}

/** @param {any} reply of `/feedback` */
function comparison({ before, after }) {
  const row = (/** @type {string} */ name, /** @type {any} */ known) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, name),
      h("td.num", {}, score(known.threshold)),
      h("td.num", {}, t("feedback.of", { count: known.n_rejected, n: known.n_ok })),
      h("td.num", {}, t("feedback.of", { count: known.n_escaped, n: known.n_ng })),
    );
  return h("div.scrolls", {}, h(
    "table",
    {},
    h("thead", {}, h("tr", {}, h("td"), [t("nav.threshold"), t("feedback.rejected"), t("feedback.escaped")].map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, row(t("feedback.before"), before), row(t("feedback.after"), after)),
  ));
}
