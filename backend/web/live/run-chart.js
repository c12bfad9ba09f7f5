// @ts-check
/** Scores one after the other against the threshold: a trend shows before parts are rejected. */
import { fill, h, s } from "../dom.js";
import { niceStep } from "../histogram.js";
import { number, score, t } from "../texts.js";
import "../texts-later.js";

/** @typedef {import("../verdict.js").Word} Word */
/** @typedef {{name: string, word: Word, score: number, threshold: number}} Point */

const MOST = 120;
/** Places for so many at least, so that the first ones stand apart. */
const FEWEST = 30;
const SIZE = { height: 220, left: 58, right: 14, top: 14, bottom: 26 };
/** Half of a mark, in CSS pixels. */
const HALF = 4;

export class RunChart {
  constructor() {
    /** @type {Map<string, Point[]>} the last ones of each ROI */
    this.points = new Map();
    this.roi = "";
    this.width = 800;
    this.ticks = s("g", { class: "hist-ticks" });
    this.line = s("path", { class: "run-threshold" });
    this.trace = s("path", { class: "run-trace" });
    this.marks = s("g");
    this.svg = s("svg", { role: "img", class: "run-chart" }, this.ticks, this.trace, this.line, this.marks);
    this.empty = h("p.muted", {}, t("live.chart.empty"));
    this.node = h("div.run", {}, this.empty, this.svg);
    this.sizes = new ResizeObserver(() => {
      if (!this.node.clientWidth || this.node.clientWidth === this.width) return;
      this.width = this.node.clientWidth;
      this.draw();
    });
    this.sizes.observe(this.node);
    this.draw();
  }

  /** @param {string} roi @param {Point} point */
  add(roi, point) {
    const points = this.points.get(roi) ?? [];
    points.push(point);
    if (points.length > MOST) points.shift();
    this.points.set(roi, points);
  }

  /** @param {string} roi whose scores are shown */
  show(roi) {
    this.roi = roi;
    this.draw();
  }

  draw() {
    const points = this.points.get(this.roi) ?? [];
    this.empty.hidden = points.length > 0;
    this.svg.toggleAttribute("hidden", points.length === 0);
    if (!points.length) return;
    const { height, left, right, top, bottom } = SIZE;
    const values = points.flatMap((point) => [point.score, point.threshold]);
    const margin = (Math.max(...values) - Math.min(...values) || 1) * 0.08;
    const [low, high] = [Math.max(0, Math.min(...values) - margin), Math.max(...values) + margin];
    const n_places = Math.max(FEWEST, points.length);
    const step_px = (this.width - left - right) / n_places;
    const x = (/** @type {number} */ at) => left + (at + 0.5 + n_places - points.length) * step_px;
    const y = (/** @type {number} */ value) => top + ((high - value) / (high - low)) * (height - top - bottom);
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${height}`);
    this.svg.setAttribute("aria-label", this.told(points));
    const ticks = [];
    const step = niceStep((high - low) / 4);
    for (let value = Math.ceil(low / step) * step; value <= high; value += step) {
      ticks.push(s("line", { x1: left, x2: this.width - right, y1: y(value), y2: y(value) }));
      ticks.push(s("text", { x: left - 8, y: y(value) + 5, "text-anchor": "end" }, number(Number(value.toPrecision(6)))));
    }
    ticks.push(s("text", { x: this.width - right, y: height - 6, "text-anchor": "end" }, t("live.chart.newest")));
    fill(this.ticks, ticks);
    this.trace.setAttribute("d", `M${points.map((point, at) => `${x(at)} ${y(point.score)}`).join("L")}`);
    // A step for each point: the threshold may have been changed in between.
    this.line.setAttribute("d", points.map((point, at) => `M${x(at) - step_px / 2} ${y(point.threshold)}h${step_px}`).join(""));
    fill(this.marks, points.map((point, at) => mark(point, x(at), y(point.score))));
  }

  /** @param {Point[]} points */
  told(points) {
    const last = points[points.length - 1];
    const n_ng = points.filter(({ word }) => word === "ng").length;
    return t("live.chart.told", { n: points.length, ng: n_ng, score: score(last.score), threshold: score(last.threshold) });
  }

  close() {
    this.sizes.disconnect();
  }
}

/** A disc for OK, a cross for NG. @param {Point} point @param {number} x @param {number} y */
function mark({ name, word, score: value }, x, y) {
  const title = s("title", {}, t("live.chart.point", { name, word: t(`verdict.word.${word}`), score: score(value) }));
  if (word === "ng") return s("path", { class: "run-ng", d: `M${x - HALF} ${y - HALF}l${2 * HALF} ${2 * HALF}m0 ${-2 * HALF}l${-2 * HALF} ${2 * HALF}` }, title);
  return s("circle", { class: "run-ok", cx: x, cy: y, r: HALF - 0.5 }, title);
}
