// @ts-check
/**
 * A length that a person knows, on the picture: the two ends of a line, or three points on the rim of a circle.
 *
 * @import {Point} from "./roi-edit.js"
 * @typedef {"line"|"circle"} Known
 */

import { fixed, t } from "../texts.js";

const SIGNIFICANT = 6;

export class Measure {
  /** @param {Known} known */
  constructor(known) {
    this.known = known;
    this.need = known === "line" ? 2 : 3;
    /** @type {Point[]} in picture pixels */
    this.points = [];
  }

  get isFull() {
    return this.points.length === this.need;
  }

  /** @param {Point} point  after the last one it begins anew */
  add(point) {
    if (this.isFull) this.points = [];
    this.points.push(point);
  }

  /** Length of the line, or diameter of the circle, in pixels; NaN where the points say none. */
  get pixels() {
    if (!this.isFull) return NaN;
    const [a, b, c] = this.points;
    return this.known === "line" ? Math.hypot(a.x - b.x, a.y - b.y) : 2 * circleThrough(a, b, c).r;
  }

  /** What to do next. */
  get says() {
    const { known, points, need, isFull, pixels } = this;
    if (isFull) return t(`editor.measured.${known}`, { pixels: fixed(pixels, 1) });
    return points.length ? t("editor.measure.next", { n: points.length + 1, of: need }) : t(`editor.measure.${known}`);
  }

  /** @param {number} mm  length or diameter  @returns {number|null} millimetres per pixel; null: too short to be measured */
  scale(mm) {
    const { pixels } = this;
    return pixels >= 1 && Number.isFinite(pixels) && mm > 0 ? Number((mm / pixels).toPrecision(SIGNIFICANT)) : null;
  }
}

/** @param {Point} a @param {Point} b @param {Point} c @returns {{x: number, y: number, r: number}}  r: infinite where they lie on one line */
export function circleThrough(a, b, c) {
  const [bx, by, cx, cy] = [b.x - a.x, b.y - a.y, c.x - a.x, c.y - a.y];
  const twice = 2 * (bx * cy - by * cx);
  const [bb, cc] = [bx * bx + by * by, cx * cx + cy * cy];
  const [x, y] = [(cy * bb - by * cc) / twice, (bx * cc - cx * bb) / twice];
  return { x: a.x + x, y: a.y + y, r: Math.hypot(x, y) };
}
