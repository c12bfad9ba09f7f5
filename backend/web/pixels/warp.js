// @ts-check
/**
 * The crop of a ROI out of pixels: rotation by bilinear interpolation in float64. Every step is a sum, a product or a
 * floor, which all browsers and NumPy compute alike; backend/commands/watch/crop.py is the same in NumPy.
 *
 * @import {Roi} from "./roi.js"
 * @typedef {{x: number, y: number, width: number, height: number}} Box  whole pixels of the picture
 */

import { cropSize, turnOf } from "./roi.js";

/**
 * The part of the picture that the crop is made of. It may be empty where the ROI lies outside.
 * @param {Roi} roi
 * @param {{width: number, height: number}} picture
 * @returns {Box}
 */
export function sourceBox(roi, picture) {
  const { cos, sin } = turnOf(roi.angle_deg);
  const { width, height } = cropSize(roi);
  const x = (width * Math.abs(cos) + height * Math.abs(sin)) / 2;
  const y = (width * Math.abs(sin) + height * Math.abs(cos)) / 2;
  const left = Math.min(Math.max(Math.floor(roi.cx - x) - 1, 0), picture.width - 1);
  const top = Math.min(Math.max(Math.floor(roi.cy - y) - 1, 0), picture.height - 1);
  const right = Math.min(Math.max(Math.ceil(roi.cx + x) + 1, left + 1), picture.width);
  const bottom = Math.min(Math.max(Math.ceil(roi.cy + y) + 1, top + 1), picture.height);
  return { x: left, y: top, width: right - left, height: bottom - top };
}

/**
 * Cut the ROI.
 *
 * Pixel (j, i) of the crop shows the picture at
 *   x = ((cx + (j + 0.5 - width / 2) · cos) - (i + 0.5 - height / 2) · sin) - 0.5
 *   y = ((cy + (j + 0.5 - width / 2) · sin) + (i + 0.5 - height / 2) · cos) - 0.5
 * counted in whole pixels between pixel centres: bilinear, columns first, rounded by floor(value + 0.5). Beyond the
 * picture's edge its outermost pixels go on.
 *
 * @param {Uint8ClampedArray} source  RGBA of `box`, rows first
 * @param {Box} box  `sourceBox` of the ROI
 * @param {Roi} roi
 * @returns {{data: Uint8ClampedArray<ArrayBuffer>, width: number, height: number}}  RGBA, opaque
 */
export function warp(source, box, roi) {
  const { cos, sin } = turnOf(roi.angle_deg);
  const { width, height } = cropSize(roi);
  const data = new Uint8ClampedArray(width * height * 4);
  const from = new Uint8Array(source.buffer, source.byteOffset, source.length);
  const to = new Uint8Array(data.buffer);
  const columnX = new Float64Array(width);
  const columnY = new Float64Array(width);
  for (let j = 0; j < width; j++) {
    const u = j + 0.5 - width / 2;
    columnX[j] = roi.cx + u * cos;
    columnY[j] = roi.cy + u * sin;
  }
  const lastX = box.width - 1;
  const lastY = box.height - 1;
  let out = 0;
  for (let i = 0; i < height; i++) {
    const v = i + 0.5 - height / 2;
    const rowX = v * sin;
    const rowY = v * cos;
    for (let j = 0; j < width; j++, out += 4) {
      const x = columnX[j] - rowX - 0.5;
      const y = columnY[j] + rowY - 0.5;
      const floorX = Math.floor(x);
      const floorY = Math.floor(y);
      const fx = x - floorX;
      const fy = y - floorY;
      const x0 = floorX - box.x;
      const y0 = floorY - box.y;
      const left = x0 < 0 ? 0 : x0 > lastX ? lastX : x0;
      const right = x0 < -1 ? 0 : x0 >= lastX ? lastX : x0 + 1;
      const above = (y0 < 0 ? 0 : y0 > lastY ? lastY : y0) * box.width;
      const below = (y0 < -1 ? 0 : y0 >= lastY ? lastY : y0 + 1) * box.width;
      const a = (above + left) << 2;
      const b = (above + right) << 2;
      const c = (below + left) << 2;
      const d = (below + right) << 2;
      for (let k = 0; k < 3; k++) {
        const upper = from[a + k] + fx * (from[b + k] - from[a + k]);
        const lower = from[c + k] + fx * (from[d + k] - from[c + k]);
        to[out + k] = upper + fy * (lower - upper) + 0.5; // what is stored is the floor: no value is negative
      }
      to[out + 3] = 255;
    }
  }
  return { data, width, height };
}
