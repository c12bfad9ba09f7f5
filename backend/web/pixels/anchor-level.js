// @ts-check
/**
 * Template and picture at one size, and what is asked of them there: see anchor.js.
 *
 * @import {Firmness, Grey, Pose, Search} from "./anchor.js"
 */

import { turnOf } from "./roi.js";

const DEGREES = 180 / Math.PI;
const FLAT = 1e-9;
/** By which a template is turned to see whether it then looks otherwise: a disc does not. */
const TURN_DEG = 10;

export class Level {
  /**
   * @param {Search} search
   * @param {Grey} template
   * @param {Grey} picture
   * @param {number} step  pixels of the picture that a pixel of this size is wide
   * @param {{x: number, y: number}} origin  of `picture` in the whole picture
   */
  constructor(search, template, picture, step, origin) {
    this.search = search;
    this.template = template;
    this.picture = picture;
    this.step = step;
    this.origin = origin;
    this.radius = Math.hypot(search.w, search.h) / 2;
    this.unit = unitOf(template.data).values;
    const [width, height] = [template.width - 2, template.height - 2];
    const inner = unitOf(insideOf(template));
    this.inner = inner.values;
    this.innerNorm = inner.norm;
    const slopes = [0, 1, 2].map(() => new Float64Array(width * height));
    for (let i = 1, k = 0; i <= height; i++) {
      for (let j = 1; j <= width; j++, k++) {
        const at = i * template.width + j;
        const across = (template.data[at + 1] - template.data[at - 1]) / (2 * step);
        const down = (template.data[at + template.width] - template.data[at - template.width]) / (2 * step);
        slopes[0][k] = across;
        slopes[1][k] = down;
        slopes[2][k] = (down * this.along(j) - across * this.down(i)) / this.radius;
      }
    }
    this.steepest = slopes.map((slope) => without(slope, this.inner));
    this.hessian = this.steepest.map((a) => this.steepest.map((b) => dot(a, b)));
    this.inverse = inverseOf(this.hessian);
  }

  /** Where a column of the template is, from its centre, in pixels of the picture. @param {number} column */
  along(column) {
    return (column + 0.5) * this.step - this.search.w / 2;
  }

  /** @param {number} row */
  down(row) {
    return (row + 0.5) * this.step - this.search.h / 2;
  }

  /**
   * The picture as the template would see it: bilinear; beyond its edge the outermost pixels go on.
   * @param {number} left  first column; negative: beside the template
   * @param {number} top
   * @param {number} width
   * @param {number} height
   * @param {{dx: number, dy: number, angle_deg: number}} pose
   * @returns {Float64Array}
   */
  seen(left, top, width, height, { dx, dy, angle_deg }) {
    const { search, step, origin } = this;
    const { data, width: columns, height: rows } = this.picture;
    const { cos, sin } = turnOf(angle_deg);
    const values = new Float64Array(width * height);
    for (let i = 0, to = 0; i < height; i++) {
      const v = this.down(top + i);
      for (let j = 0; j < width; j++, to++) {
        const u = this.along(left + j);
        const pointX = (search.cx + dx + u * cos - v * sin - origin.x) / step - 0.5;
        const pointY = (search.cy + dy + u * sin + v * cos - origin.y) / step - 0.5;
        const x = pointX < 0 ? 0 : pointX > columns - 1 ? columns - 1 : pointX;
        const y = pointY < 0 ? 0 : pointY > rows - 1 ? rows - 1 : pointY;
        const x0 = Math.floor(x);
        const y0 = Math.floor(y);
        const above = y0 * columns + x0;
        const below = y0 + 1 < rows ? above + columns : above;
        const right = x0 + 1 < columns ? 1 : 0;
        const fx = x - x0;
        const upper = data[above] + fx * (data[above + right] - data[above]);
        const lower = data[below] + fx * (data[below + right] - data[below]);
        values[to] = upper + (y - y0) * (lower - upper);
      }
    }
    return values;
  }

  /** NCC of the template at a pose. @param {{dx: number, dy: number, angle_deg: number}} pose */
  score(pose) {
    const { values, norm } = unitOf(this.seen(0, 0, this.template.width, this.template.height, pose));
    return norm > FLAT ? dot(values, this.unit) : 0;
  }

  /**
   * After Gauss-Newton steps at this size.
   * @param {Pose} pose
   * @param {number} steps
   * @returns {Pose}
   */
  refined(pose, steps) {
    let { dx, dy, angle_deg } = pose;
    const [width, height] = [this.template.width - 2, this.template.height - 2];
    for (let n = 0; n < steps && this.inverse; n++) {
      const { values, norm } = unitOf(this.seen(1, 1, width, height, { dx, dy, angle_deg }));
      if (norm < FLAT) break;
      for (let k = 0; k < values.length; k++) values[k] = (values[k] - this.inner[k]) * this.innerNorm;
      const slopes = this.steepest.map((slope) => dot(slope, values));
      const [along, across, turned] = this.inverse.map((row) => row[0] * slopes[0] + row[1] * slopes[1] + row[2] * slopes[2]);
      angle_deg -= (turned / this.radius) * DEGREES;
      const { cos, sin } = turnOf(angle_deg);
      dx -= along * cos - across * sin;
      dy -= along * sin + across * cos;
    }
    return { dx, dy, angle_deg, score: this.score({ dx, dy, angle_deg }) };
  }

  /**
   * The best places of a search at whole pixels of this size and at steps of the angle that move the corners by less than one.
   * @param {number} n  how many
   * @returns {Pose[]}
   */
  candidates(n) {
    const { search, step } = this;
    const reach = Math.ceil(search.search_px / step);
    const turns = Math.ceil(search.search_deg / ((step / this.radius) * DEGREES));
    const side = 2 * reach + 1;
    const angles = Array.from({ length: 2 * turns + 1 }, (_, k) => (turns ? ((k - turns) * search.search_deg) / turns : 0));
    const scores = new Float64Array(angles.length * side * side);
    for (const [k, angle_deg] of angles.entries()) scores.set(this.scoresAt(angle_deg, reach), k * side * side);
    const near = (0.1 * Math.min(search.w, search.h)) / step;
    const beside = Math.max(1, Math.floor(near));
    const turned = turns ? Math.max(1, Math.floor((near * turns * ((step / this.radius) * DEGREES)) / search.search_deg)) : 1;
    const poses = [];
    for (let found = 0; found < n; found++) {
      let best = 0;
      for (let at = 1; at < scores.length; at++) if (scores[at] > scores[best]) best = at;
      if (scores[best] === -Infinity) break;
      const k = Math.floor(best / (side * side));
      const q = Math.floor((best % (side * side)) / side);
      const p = best % side;
      const { cos, sin } = turnOf(angles[k]);
      const [along, across] = [(p - reach) * step, (q - reach) * step];
      poses.push({ dx: along * cos - across * sin, dy: along * sin + across * cos, angle_deg: angles[k], score: scores[best] });
      for (let c = Math.max(k - turned, 0); c <= Math.min(k + turned, angles.length - 1); c++) {
        for (let b = Math.max(q - beside, 0); b <= Math.min(q + beside, side - 1); b++) {
          scores.fill(-Infinity, (c * side + b) * side + Math.max(p - beside, 0), (c * side + b) * side + Math.min(p + beside, side - 1) + 1);
        }
      }
    }
    return poses;
  }

  /**
   * NCC at every place of the search.
   * @param {number} angle_deg
   * @param {number} reach  pixels of this size
   * @returns {Float64Array}  (2 reach + 1)², rows first
   */
  scoresAt(angle_deg, reach) {
    const { width, height } = this.template;
    const columns = width + 2 * reach;
    const seen = this.seen(-reach, -reach, columns, height + 2 * reach, { dx: 0, dy: 0, angle_deg });
    const side = 2 * reach + 1;
    const scores = new Float64Array(side * side);
    for (let q = 0, to = 0; q < side; q++) {
      for (let p = 0; p < side; p++, to++) {
        let [sum, squares, found] = [0, 0, 0];
        for (let i = 0, k = 0; i < height; i++) {
          for (let j = 0, at = (q + i) * columns + p; j < width; j++, at++, k++) {
            const value = seen[at];
            sum += value;
            squares += value * value;
            found += value * this.unit[k];
          }
        }
        const spread = squares - (sum * sum) / (width * height);
        scores[to] = spread > FLAT ? found / Math.sqrt(spread) : 0;
      }
    }
    return scores;
  }

  /** Of a level whose picture is the template itself. @param {number} noise  of a pixel of the picture, as a standard deviation  @returns {Firmness} */
  firmness(noise) {
    const contrast = unitOf(this.template.data).norm / Math.sqrt(this.template.data.length);
    const turned = this.score({ dx: 0, dy: 0, angle_deg: TURN_DEG });
    if (!this.inverse) return { contrast, turned, error_px: Infinity };
    const [[x], [, y]] = this.inverse;
    return { contrast, turned, error_px: (noise / this.step) * Math.sqrt(x + y) };
  }
}

/** @param {Float64Array} a @param {Float64Array} b */
function dot(a, b) {
  let sum = 0;
  for (let k = 0; k < a.length; k++) sum += a[k] * b[k];
  return sum;
}

/** Values without their mean, of length 1, and the length that they had. @param {Float64Array} values */
function unitOf(values) {
  let sum = 0;
  for (let k = 0; k < values.length; k++) sum += values[k];
  const centred = values.map((value) => value - sum / values.length);
  const norm = Math.sqrt(dot(centred, centred));
  const scale = 1 / Math.max(norm, 1e-12);
  return { values: centred.map((value) => value * scale), norm };
}

/** The template without its outermost pixels, which have no slope. @param {Grey} template */
function insideOf({ data, width, height }) {
  const rows = [];
  for (let i = 1; i < height - 1; i++) rows.push(...data.subarray(i * width + 1, (i + 1) * width - 1));
  return Float64Array.from(rows);
}

/** A slope without what brightness and contrast explain. @param {Float64Array} slope @param {Float64Array} unit */
function without(slope, unit) {
  let sum = 0;
  for (let k = 0; k < slope.length; k++) sum += slope[k];
  const centred = slope.map((value) => value - sum / slope.length);
  const share = dot(centred, unit);
  return centred.map((value, k) => value - share * unit[k]);
}

/** @param {number[][]} m  symmetric, 3 by 3  @returns {number[][] | null} null: it has none */
function inverseOf([[a, b, c], [, d, e], [, , f]]) {
  const [A, B, C] = [d * f - e * e, c * e - b * f, b * e - c * d];
  const determinant = a * A + b * B + c * C;
  if (determinant < FLAT) return null;
  const rows = [[A, B, C], [B, a * f - c * c, b * c - a * e], [C, b * c - a * e, a * d - b * b]];
  return rows.map((row) => row.map((value) => value / determinant));
}
