// @ts-check
/**
 * The crop of a ROI as the existing desktop GUI makes it, for models that were fitted with its crops.
 *
 * The GUI turns the whole picture about the ROI's centre with OpenCV 4.11 (`getRotationMatrix2D`, `warpAffine`, linear, black
 * outside), and takes whole pixels out of what it gets. It counts from the centres of pixels where the console counts from their
 * corners: half a pixel lies between them. OpenCV interpolates in fixed point: 1/32 of a pixel, weights in 1/1024.
 *
 * @import {Roi} from "./roi.js"
 * @import {Box} from "./warp.js"
 * @typedef {{width: number, height: number}} Size
 * @typedef {[number, number, number, number, number, number]} Matrix  two rows
 */

import { guiSidesOf } from "./roi.js";

const RADIANS = Math.PI / 180;
const STEPS = 32; // of a pixel, between which OpenCV's linear interpolation knows nothing
const FIXED = 1024;

/** To the nearest integer, and from the middle to the even one: as .NET and OpenCV round. @param {number} value */
function halfToEven(value) {
  const below = Math.floor(value);
  const rest = value - below;
  return rest > 0.5 || (rest === 0.5 && below % 2 !== 0) ? below + 1 : below;
}

/** The ROI's centre, with the GUI's way there by its left top corner. @param {Roi} roi */
function centreOf(roi) {
  const { width, height } = guiSidesOf(roi);
  return { x: roi.cx - width / 2 + width / 2, y: roi.cy - height / 2 + height / 2 };
}

/**
 * From the picture to the turned picture: OpenCV's `getRotationMatrix2D` about the centre, which is a float32 there.
 * `Math.cos` may differ in its last bit from machine to machine: by far less than OpenCV's fixed point tells apart.
 * @param {Roi} roi
 * @returns {Matrix}
 */
function turning(roi) {
  const { x, y } = centreOf(roi);
  const [cx, cy] = [Math.fround(x), Math.fround(y)];
  const [cos, sin] = [Math.cos(roi.angle_deg * RADIANS), Math.sin(roi.angle_deg * RADIANS)];
  return [cos, sin, (1 - cos) * cx - sin * cy, -sin, cos, sin * cx + (1 - cos) * cy];
}

/** From the turned picture back, in the steps in which `warpAffine` inverts. @param {Matrix} matrix @returns {Matrix} */
function inverse([a, b, c, d, e, f]) {
  const scale = 1 / (a * e - b * d);
  const [m0, m1, m3, m4] = [e * scale, b * -scale, d * -scale, a * scale];
  return [m0, m1, -m0 * c - m1 * f, m3, m4, -m3 * c - m4 * f];
}

/**
 * Which pixels of the turned picture are the crop. At the right and lower border it becomes smaller, at the left and upper one it
 * moves inside.
 * @param {Roi} roi
 * @param {Size} picture
 * @returns {Box}
 */
function guiBox(roi, picture) {
  const sides = guiSidesOf(roi);
  const centre = centreOf(roi);
  const [a, b, c, d, e, f] = turning(roi);
  const width = Math.max(1, halfToEven(sides.width));
  const height = Math.max(1, halfToEven(sides.height));
  const left = halfToEven(Math.fround(a * centre.x + b * centre.y + c) - width * 0.5);
  const top = halfToEven(Math.fround(d * centre.x + e * centre.y + f) - height * 0.5);
  const x = Math.min(Math.max(left, 0), picture.width - 1);
  const y = Math.min(Math.max(top, 0), picture.height - 1);
  return { x, y, width: Math.min(width, picture.width - x), height: Math.min(height, picture.height - y) };
}

/**
 * The part of the picture that the crop is made of.
 * @param {Roi} roi
 * @param {Size} picture
 * @returns {Box}
 */
export function guiSourceBox(roi, picture) {
  const box = guiBox(roi, picture);
  const [a, b, c, d, e, f] = inverse(turning(roi));
  const corners = [box.x, box.x + box.width - 1].flatMap((x) => [box.y, box.y + box.height - 1].map((y) => ({ x: a * x + b * y + c, y: d * x + e * y + f })));
  const [xs, ys] = [corners.map(({ x }) => x), corners.map(({ y }) => y)];
  const left = Math.min(Math.max(Math.floor(Math.min(...xs)) - 1, 0), picture.width - 1);
  const top = Math.min(Math.max(Math.floor(Math.min(...ys)) - 1, 0), picture.height - 1);
  const right = Math.min(Math.max(Math.ceil(Math.max(...xs)) + 2, left + 1), picture.width);
  const bottom = Math.min(Math.max(Math.ceil(Math.max(...ys)) + 2, top + 1), picture.height);
  return { x: left, y: top, width: right - left, height: bottom - top };
}

/**
 * Where the pixels of a line of the turned picture come from, without what its other coordinate adds.
 * @param {number} factor  of the matrix
 * @param {number} from  the first pixel
 * @param {number} n
 */
function fixedSteps(factor, from, n) {
  return Int32Array.from({ length: n }, (_, at) => halfToEven(factor * (from + at) * FIXED));
}

/**
 * Cut the ROI as the GUI does.
 * @param {Uint8ClampedArray} source  RGBA of `box`, rows first
 * @param {Box} box  `guiSourceBox` of the ROI
 * @param {Roi} roi
 * @param {Size} picture
 * @returns {{data: Uint8ClampedArray<ArrayBuffer>, width: number, height: number}}  RGBA, opaque
 */
export function guiWarp(source, box, roi, picture) {
  const cut = guiBox(roi, picture);
  const [a, b, c, d, e, f] = inverse(turning(roi));
  const data = new Uint8ClampedArray(cut.width * cut.height * 4);
  const alongX = fixedSteps(a, cut.x, cut.width);
  const alongY = fixedSteps(d, cut.x, cut.width);
  const half = FIXED / STEPS / 2;
  let out = 0;
  for (let i = 0; i < cut.height; i++) {
    const rowX = halfToEven((b * (cut.y + i) + c) * FIXED) + half;
    const rowY = halfToEven((e * (cut.y + i) + f) * FIXED) + half;
    for (let j = 0; j < cut.width; j++, out += 4) {
      const x = (rowX + alongX[j]) >> 5;
      const y = (rowY + alongY[j]) >> 5;
      const [fx, fy] = [x & (STEPS - 1), y & (STEPS - 1)];
      const [left, top] = [(x >> 5) - box.x, (y >> 5) - box.y];
      // Of a pixel beyond the picture nothing is added: it is black.
      const [right, below] = [left + 1, top + 1];
      const isLeft = left >= 0 && left < box.width;
      const isRight = right >= 0 && right < box.width;
      const isAbove = top >= 0 && top < box.height;
      const isBelow = below >= 0 && below < box.height;
      const [first, second] = [(top * box.width + left) << 2, (below * box.width + left) << 2];
      const nw = isLeft && isAbove ? (STEPS - fx) * (STEPS - fy) : 0;
      const ne = isRight && isAbove ? fx * (STEPS - fy) : 0;
      const sw = isLeft && isBelow ? (STEPS - fx) * fy : 0;
      const se = isRight && isBelow ? fx * fy : 0;
      for (let k = 0; k < 3; k++) {
        let sum = FIXED / 2;
        if (nw) sum += nw * source[first + k];
        if (ne) sum += ne * source[first + 4 + k];
        if (sw) sum += sw * source[second + k];
        if (se) sum += se * source[second + 4 + k];
        data[out + k] = sum >> 10;
      }
      data[out + 3] = 255;
    }
  }
  return { data, width: cut.width, height: cut.height };
}
