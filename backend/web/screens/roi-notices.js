// @ts-check
/** What the ROI screen has to tell about pictures, and when two stations changed one ROI. */
import { h } from "../dom.js";
import { cutText } from "../pictures.js";
import { t } from "../texts.js";

/** @typedef {import("../layout.js").LayoutRoi} LayoutRoi */
/** @typedef {import("../keep.js").KeptPicture} KeptPicture */

const MOST_NAMED = 5;

/**
 * @param {KeptPicture[]} pictures
 * @param {LayoutRoi} mine
 * @param {import("../anchor.js").Anchor | null} anchor
 * @param {(picture: KeptPicture) => string | null} problemOf
 * @returns {Element[]}
 */
export function noticesOf(pictures, { roi }, anchor, problemOf) {
  const notices = [];
  const problems = pictures.filter((picture) => problemOf(picture) !== null);
  if (problems.length) {
    const names = problems.slice(0, MOST_NAMED).map((picture) => `${picture.name} (${problemOf(picture)})`);
    notices.push(h("div.notice", {}, t("roi.problems", { n: problems.length, names: names.join(", ") })));
  }
  const cut = roi && cutText(roi, anchor);
  const before = pictures.filter((picture) => picture.stored && picture.stored.cut !== cut).length;
  if (roi && before) notices.push(h("div.notice", {}, h("p", {}, t("roi.stored_before", { n: before }))));
  return notices;
}

/**
 * @param {LayoutRoi | null} theirs
 * @param {() => void} keepMine
 * @param {(theirs: LayoutRoi) => void} takeTheirs
 */
export function conflictNotice(theirs, keepMine, takeTheirs) {
  return h(
    "div.notice.bad",
    { role: "alert" },
    h("p", {}, t("roi.conflict")),
    h("button", { onclick: keepMine }, t("roi.conflict_mine")),
    theirs ? h("button", { onclick: () => takeTheirs(theirs) }, t("roi.conflict_theirs")) : null,
  );
}

/**
 * Keep files as pictures, and say what came of it.
 * @param {import("../main.js").App} app
 * @param {import("../pictures.js").PictureSet} set
 * @param {import("../ingest.js").Found[]} found
 * @param {(text: string) => void} onProgress
 * @returns {Promise<boolean>} whether there are new ones
 */
export async function takePictures(app, set, found, onProgress) {
  if (!found.length) {
    app.say("warning", t("drop.nothing"));
    return false;
  }
  const { added, known, refused } = await set.add(found, (done, total) => onProgress(t("drop.reading", { done: done + 1, total })));
  if (added.length) app.say("done", t("drop.added", { n: added.length }));
  if (known.length) app.say("warning", t("drop.known", { n: known.length }));
  for (const { name, reason } of refused.slice(0, MOST_NAMED)) app.say("error", reason.includes(name) ? reason : `${name}: ${reason}`);
  if (refused.length > MOST_NAMED) app.say("error", t("drop.more_refused", { n: refused.length - MOST_NAMED }));
  return added.length > 0;
}
