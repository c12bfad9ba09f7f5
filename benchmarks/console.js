// @ts-check
// Times what the console does with a picture, in milliseconds, and posts them.
import { cutRoi, openPicture, selfTest } from "/pixels/picture.js";
import { sourceBox, warp } from "/pixels/warp.js";

const ROUNDS = 15;
const ANGLES = [0, 17, 90];

/** @param {() => unknown} action  @returns {Promise<number[]>} of the first run, the fastest, and the median without the first */
async function timed(action) {
  const times = [];
  for (let round = 0; round <= ROUNDS; round++) {
    const start = performance.now();
    await action();
    times.push(performance.now() - start);
  }
  const [first, ...others] = times;
  others.sort((a, b) => a - b);
  return [first, Math.min(first, others[0]), others[Math.floor(others.length / 2)]];
}

/** @param {number} side @param {number} angle_deg @param {{width: number, height: number}} picture */
function roiOf(side, angle_deg, picture) {
  return { kind: "rect", cx: picture.width / 2, cy: picture.height / 2, w: side, h: side, r: 0, r_inner: 0, angle_deg };
}

const start = performance.now();
await selfTest();
const once = performance.now() - start;
const rows = [["self-test, with the worker's start", [once, once, once]]];

for (const [name, side] of await (await fetch("/cases")).json()) {
  const blob = await (await fetch(`/files/${name}`)).blob();
  let picture = await openPicture(blob, { name });
  rows.push([`open ${name}`, await timed(async () => { picture = await openPicture(blob, { name }); })]);
  for (const angle of ANGLES) {
    const roi = roiOf(side, angle, picture);
    const box = sourceBox(roi, picture);
    const pixels = crypto.getRandomValues(new Uint8Array(1 << 16));
    const source = new Uint8ClampedArray(box.width * box.height * 4).map((_, k) => pixels[k & 0xffff]);
    rows.push([`warp ${side}×${side}, ${angle}°`, await timed(() => warp(source, box, roi))]);
    rows.push([`cut ${side}×${side} out of ${name}, ${angle}°`, await timed(() => cutRoi(picture, roi))]);
  }
}
await fetch("/results/times", { method: "POST", body: JSON.stringify(rows) });
await fetch("/results/done", { method: "POST", body: "" });
