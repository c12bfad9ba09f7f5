// @ts-check
// Cuts every case that the server lists and posts the crop, or what was refused.
import { cutRoi, openPicture, selfTest } from "/pixels/picture.js";
import { shapeOf } from "/pixels/roi.js";
import { cutText } from "/pictures.js";

const state = /** @type {HTMLElement} */ (document.getElementById("state"));
const opened = new Map();

async function fetched(file) {
  return openPicture(await (await fetch(`/files/${file}`)).blob(), { name: file });
}

async function one({ file, roi }) {
  try {
    if (!opened.has(file)) opened.set(file, fetched(file));
    const picture = await opened.get(file);
    const { blob, width, height } = await cutRoi(picture, roi);
    return { crop: blob, head: { width, height, turned: picture.turned, shape: shapeOf(roi, { width, height }), cut: cutText(roi) } };
  } catch (error) {
    return { crop: new Blob([]), head: { refused: error.code ?? "", message: error.message } };
  }
}

// A header takes no other characters than those of ASCII.
const ascii = (text) => text.replace(/[^ -~]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
const report = (name, body, head = {}) => fetch(`/results/${name}`, { method: "POST", body, headers: { "X-Head": ascii(JSON.stringify(head)) } });

const cases = await (await fetch("/cases")).json();
for (const [index, given] of cases.entries()) {
  const { crop, head } = await one(given);
  await report(index, crop, head);
}
await report("self-test", new Blob([]), await selfTest());
await report("done", new Blob([]));
state.textContent = "done";
