// @ts-check
/** The verdict on the screen of a line: about the newest part, unless something says that it is about nothing any more. */
import { partVerdict } from "../part.js";
import { LIVE_PATIENCE_MS } from "../question.js";
import { t } from "../texts.js";
import "../texts-later.js";

/** @typedef {import("../verdict.js").Verdict} Verdict */
/** @typedef {import("../loop.js").Loop} Loop */

const NAMED = 3;

/**
 * @param {object} known
 * @param {import("../recipe-guard.js").RecipeGuard} known.guard
 * @param {string | null} known.blocked why nothing is judged here at all
 * @param {Loop | null} known.loop null: no source was chosen
 * @param {import("./last-parts.js").LivePart | null} known.shown
 * @param {boolean} known.looksBack a person looks at a part of before
 * @returns {Verdict}
 */
export function liveVerdict({ guard, blocked, loop, shown, looksBack }) {
  const found = shown && partVerdict(shown.part, guard);
  const doubt = guard.doubt();
  if (doubt) return none(t(`verdict.${doubt}`));
  if (blocked) return none(blocked);
  if (loop?.failed) return none(t("live.failed", { reason: loop.failed }));
  const late = loop && !looksBack ? whyLate(loop) : null;
  if (late) return none(late);
  if (!shown || !found) return none(loop ? t("live.first") : t("live.no_source"));
  if (isOutdated(shown.part, guard)) return none(t("live.changed"));
  if (found.verdict === "none") return none(found.reason);
  if (found.verdict === "ok") return { word: "ok", reason: "" };
  const names = shown.part.rois.filter(({ verdict }) => verdict === "ng").map(({ roi }) => roi.name);
  const more = names.length - NAMED;
  return { word: "ng", reason: names.slice(0, NAMED).join(", ") + (more > 0 ? t("live.and_more", { n: more }) : "") };
}

/** Whether the model, a threshold or the layout was changed since. @param {import("../part.js").Part} part @param {import("../recipe-guard.js").RecipeGuard} guard */
function isOutdated({ etag, rois }, guard) {
  return rois.length > 0 && (etag !== guard.etag || rois.some(({ roi, reply }) => reply && !guard.confirms(roi, reply) && reply.calibration === "applied"));
}

/** Why the newest verdict is not of what lies before the camera, or next in the folder. @param {Loop} loop @returns {string | null} */
function whyLate({ source, paused, singles, judging, again, busy_until }) {
  const now = performance.now();
  if (now < busy_until) return t("live.busy", { n: Math.ceil((busy_until - now) / 1000) });
  if (source.kind === "camera" && source.problem && (!paused || singles)) return source.problem;
  if (!judging || now - judging.since < LIVE_PATIENCE_MS) return null;
  return again?.before?.reason || t("live.late", { name: judging.name, seconds: Math.round((now - judging.since) / 1000) });
}

/** @param {string} reason @returns {Verdict} */
function none(reason) {
  return { word: "none", reason };
}
