// @ts-check
// Cuts every case that the server lists and posts the crop, or what was refused.
import { cutRoi, openPicture, selfTest, shapeOf } from "/pixels/picture.js";

const state = /** @type {HTMLElement} */ (document.getElementById("state"));

async function one({ file, roi }) {
  try {
    const blob = await (await fetch(`/files/${file}`)).blob();
    const picture = await openPicture(blob, { name: file });
    const { blob: crop, width, height } = await cutRoi(picture, roi);
    return { crop, head: { width, height, turned: picture.turned, shape: shapeOf(roi) } };
  } catch (error) {
    return { crop: new Blob([]), head: { refused: error.code ?? "", message: String(error) } };
  }
}

const report = (name, body, head = {}) => fetch(`/results/${name}`, { method: "POST", body, headers: { "X-Head": JSON.stringify(head) } });

const cases = await (await fetch("/cases")).json();
for (const [index, given] of cases.entries()) {
  const { crop, head } = await one(given);
  await report(index, crop, head);
}
await report("self-test", new Blob([]), await selfTest());
state.textContent = "done";
await report("done", new Blob([]));
