// @ts-check
// Searches the anchor of every case, cuts its ROI, and posts both with the milliseconds.
import { placed, tryAnchor } from "/anchor.js";
import { cutRoi, locateIn, openPicture } from "/pixels/picture.js";

/** @type {Map<string, Promise<any>>} */
const templates = new Map();
/** @param {string} name */
const fetched = async (name) => openPicture(await (await fetch(`/files/${name}`)).blob(), { name });

/** A header takes no other characters than those of ASCII. @param {object} head */
const ascii = (head) => JSON.stringify(head).replace(/[^ -~]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);

for (const { name, picture, template, search, roi } of await (await fetch("/cases")).json()) {
  const opened = await fetched(picture);
  let [pose, ms] = [null, 0];
  const problem = template || roi ? null : (await tryAnchor(opened, search)).problem;
  if (template) {
    templates.set(template, templates.get(template) ?? fetched(template));
    const wanted = await templates.get(template);
    const start = performance.now();
    pose = await locateIn(opened, wanted, search);
    ms = performance.now() - start;
  }
  let body = new Blob([]);
  if (roi) {
    try {
      body = (await cutRoi(opened, pose ? placed(roi, search, pose) : roi)).blob;
    } catch {
      body = new Blob([]); // it reaches beyond the picture
    }
  }
  await fetch(`/results/${name}`, { method: "POST", body, headers: { "X-Head": ascii({ pose, ms, problem }) } });
}
await fetch("/results/done", { method: "POST", body: "" });
