// @ts-check
/**
 * The other ROIs of the recipe beside the one that is edited: outlines and names, and which of them a click means.
 *
 * Hundreds of them cost no more than a few while a ROI is dragged: they are one path in picture pixels, which the view only scales.
 *
 * @import {Roi} from "./roi.js"
 * @import {Point} from "./roi-edit.js"
 * @import {View} from "./roi-view.js"
 * @typedef {{id: string, name: string, roi: Roi, kind?: "anchor"|"off"}} Other  kind: drawn otherwise
 */

import { s } from "../dom.js";
import { handleAt } from "./roi-edit.js";
import { turnOf } from "./roi.js";

const KINDS = /** @type {const} */ (["roi", "off", "anchor"]);
const NAMED_FROM = 56; // CSS pixels that a ROI is wide: below, names would cover one another

export class Others {
  constructor() {
    this.root = s("g", { class: "roi-others" });
    this.lines = s("g");
    this.names = s("g");
    this.paths = KINDS.map((kind) => s("path", { class: `roi-other ${kind}`, "vector-effect": "non-scaling-stroke" }));
    this.lines.append(...this.paths);
    this.root.append(this.lines, this.names);
    /** @type {Other[]} */
    this.list = [];
    this.drawn = "";
  }

  /** @param {Other[]} list @param {View} view */
  set(list, view) {
    this.list = list;
    this.drawn = "";
    for (const [at, path] of this.paths.entries()) path.setAttribute("d", list.filter(({ kind }) => (kind ?? "roi") === KINDS[at]).map(({ roi }) => outlineOf(roi)).join(""));
    this.names.replaceChildren(...list.map(({ name }) => {
      const text = s("text", { class: "roi-name" });
      text.textContent = name;
      return text;
    }));
    this.draw(view);
  }

  /** @param {View} view */
  draw(view) {
    const now = `${view.scale} ${view.left} ${view.top}`;
    if (now === this.drawn) return;
    this.drawn = now;
    this.lines.setAttribute("transform", `matrix(${view.scale} 0 0 ${view.scale} ${-view.left * view.scale} ${-view.top * view.scale})`);
    for (const [at, { roi }] of this.list.entries()) {
      const text = this.names.children[at];
      const { x, y } = view.toStage({ x: roi.cx, y: roi.cy });
      text.toggleAttribute("hidden", widthOf(roi) * view.scale < NAMED_FROM);
      text.setAttribute("x", x.toFixed(1));
      text.setAttribute("y", y.toFixed(1));
    }
  }

  /**
   * Which of them a click means: the smallest that it hits, unless the edited one is smaller still.
   * @param {Point} point
   * @param {Roi|null} edited
   * @returns {Other|null}
   */
  at(point, edited) {
    const hit = this.list.filter(({ roi, kind }) => kind !== "anchor" && holds(roi, point)).sort((a, b) => areaOf(a.roi) - areaOf(b.roi));
    if (!hit.length || (edited && holds(edited, point) && areaOf(edited) <= areaOf(hit[0].roi))) return null;
    return hit[0];
  }
}

/** @param {Roi} roi */
const widthOf = (roi) => (roi.kind === "rect" ? roi.w : 2 * roi.r);

/** @param {Roi} roi */
const areaOf = (roi) => (roi.kind === "rect" ? roi.w * roi.h : Math.PI * roi.r * roi.r);

/** @param {Roi} roi @param {Point} point */
function holds(roi, { x, y }) {
  const [dx, dy] = [x - roi.cx, y - roi.cy];
  if (roi.kind !== "rect") return Math.hypot(dx, dy) <= roi.r;
  const { cos, sin } = turnOf(roi.angle_deg);
  return Math.abs(dx * cos + dy * sin) <= roi.w / 2 && Math.abs(dy * cos - dx * sin) <= roi.h / 2;
}

/** @param {Roi} roi  @returns {string} in picture pixels */
function outlineOf(roi) {
  if (roi.kind === "rect") return `M${/** @type {const} */ (["nw", "ne", "se", "sw"]).map((name) => handleAt(roi, name)).map(({ x, y }) => `${x} ${y}`).join("L")}Z`;
  const circle = (/** @type {number} */ r) => (r > 0 ? `M${roi.cx - r} ${roi.cy}a${r} ${r} 0 0 1 ${2 * r} 0a${r} ${r} 0 0 1 ${-2 * r} 0Z` : "");
  return circle(roi.r) + (roi.kind === "annulus" ? circle(roi.r_inner) : "");
}
