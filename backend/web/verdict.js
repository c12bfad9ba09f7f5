// @ts-check
/** The verdict about a part, and when there is none. A part is OK only where the service answered OK, and still would. */
import { fill, h, icon, s } from "./dom.js";
import { hashOf } from "./router.js";
import { t } from "./texts.js";

/** @typedef {"ok" | "ng" | "none"} Word */
/** @typedef {{word: Word, reason: string}} Verdict */

/**
 * What is known when a verdict is asked for.
 * @typedef {object} Known
 * @property {string | null} blocked why nothing may be judged here at all
 * @property {"away" | "starting" | "unknown" | null} doubt of the guard
 * @property {boolean} hasPicture
 * @property {boolean} judging
 * @property {string | null} problem why this picture could not be judged
 * @property {any} reply of `/infer`
 * @property {boolean} confirmed the reply is of the model and the threshold that are served now
 */

/**
 * @param {Known} known
 * @returns {Verdict}
 */
export function verdictOf({ blocked, doubt, hasPicture, judging, problem, reply, confirmed }) {
  if (doubt) return none(t(`verdict.${doubt}`));
  if (blocked) return none(blocked);
  if (!hasPicture) return none(t("verdict.nothing"));
  if (problem) return none(problem);
  if (judging || !reply) return none(t("verdict.judging"));
  if (reply.calibration === "stale") return none(t("verdict.stale"));
  if (reply.calibration !== "applied" || typeof reply.threshold !== "number") return none(t("verdict.no_threshold"));
  if (!confirmed) return none(t("verdict.changed"));
  if (reply.decision === "ok") return { word: "ok", reason: "" };
  if (reply.decision === "ng") return { word: "ng", reason: "" };
  return none(t("verdict.no_decision"));
}

/**
 * To the screen on which what is missing for any verdict is put right.
 * @param {"unfitted" | "moved" | "stale" | "no_threshold"} lack
 * @param {import("./api.js").RoiKey} roi
 */
export function wayFrom(lack, roi) {
  const toFit = lack === "unfitted" || lack === "moved";
  return h("a.button.primary", { href: hashOf(toFit ? "samples" : "threshold", roi) }, t(toFit ? "inspect.to_samples" : "card.next.threshold"), icon("right"));
}

/** @param {string} reason @returns {Verdict} */
function none(reason) {
  return { word: "none", reason };
}

/** A disc with a tick, an octagon with a cross, a triangle with a dash: told apart without colour. */
const SHAPES = {
  ok: [["circle", { cx: 50, cy: 50, r: 46 }], ["path", { d: "M27 52l16 17 31-36" }]],
  ng: [["path", { d: "M31 4h38l27 27v38L69 96H31L4 69V31z" }], ["path", { d: "M32 32l36 36M68 32L32 68" }]],
  none: [["path", { d: "M50 6l46 84H4z" }], ["path", { d: "M34 66h32" }]],
};

/** @param {Word} word */
export function shapeOfWord(word) {
  const [[outer, outerProps], [inner, innerProps]] = /** @type {any} */ (SHAPES[word]);
  return s("svg", { viewBox: "0 0 100 100", class: "verdict-shape", "aria-hidden": "true" }, s(outer, { ...outerProps, class: "verdict-outer" }), s(inner, { ...innerProps, class: "verdict-inner" }));
}

/** The verdict, as large as there is room. */
export function verdictPanel() {
  const shape = h("div.verdict-sign");
  const word = h("p.verdict-word");
  const reason = h("p.verdict-reason");
  const score = h("p.verdict-score.num");
  const node = h("div.verdict", { role: "status", "aria-live": "assertive", "aria-atomic": "true" }, shape, word, reason, score);
  return {
    node,
    /** @param {Verdict} verdict @param {string} told score and threshold; empty without a verdict */
    show(verdict, told) {
      const text = `${verdict.word}|${verdict.reason}|${told}`;
      if (node.dataset.shown === text) return;
      node.dataset.shown = text;
      node.dataset.word = verdict.word;
      fill(shape, shapeOfWord(verdict.word));
      fill(word, t(`verdict.word.${verdict.word}`));
      fill(reason, verdict.reason);
      fill(score, told);
    },
  };
}
