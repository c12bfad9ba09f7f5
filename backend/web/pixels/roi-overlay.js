// @ts-check
/**
 * The ROI as lines and handles over the picture. Lines are as thick at every zoom; handles are found by 44-pixel areas.
 *
 * @import {Roi} from "./roi.js"
 * @import {Handle, Point} from "./roi-edit.js"
 * @import {Measure} from "./roi-measure.js"
 * @import {View} from "./roi-view.js"
 */

import { s } from "../dom.js";
import { handleAt } from "./roi-edit.js";
import { circleThrough } from "./roi-measure.js";
import { turnOf } from "./roi.js";

const HIT = 22; // half of the smallest target for a finger
const OUTWARD = 10; // so that the areas of the corners leave the middle of a small ROI free
const STEM = 34;

/** @type {Handle[]} */
const OF_RECT = ["n", "e", "s", "w", "nw", "ne", "se", "sw"];

export class Overlay {
  constructor() {
    this.root = s("svg", { "aria-hidden": "true" });
    this.shade = s("path", { class: "roi-shade", "fill-rule": "evenodd" });
    this.body = s("path", { class: "roi-body", "data-handle": "move" });
    this.halo = s("path", { class: "roi-halo" });
    this.line = s("path", { class: "roi-line" });
    this.measure = s("path", { class: "roi-measure" });
    this.root.append(this.shade, this.body, this.halo, this.line);
    /** @type {Map<Handle, Element>} */
    this.handles = new Map();
    for (const name of /** @type {Handle[]} */ ([...OF_RECT, "r", "r_inner", "rotate"])) {
      const group = s("g", { class: "roi-handle", "data-handle": name });
      group.append(s("circle", { class: "roi-hit", r: HIT, "data-handle": name }), s("circle", { class: "roi-knob", r: name === "rotate" ? 8 : 6 }));
      this.handles.set(name, group);
      this.root.append(group);
    }
    this.root.append(this.measure);
  }

  /**
   * @param {View} view
   * @param {Roi|null} roi
   * @param {Measure|null} measure  what is measured
   * @param {Handle|null} held  the handle that is dragged
   * @param {boolean} plain  it cannot be turned
   */
  draw(view, roi, measure, held, plain) {
    this.measure.setAttribute("d", measure ? measuring(view, measure) : "");
    for (const part of [this.shade, this.body, this.halo, this.line]) toggle(part, roi !== null);
    if (!roi) {
      for (const group of this.handles.values()) toggle(group, false);
      return;
    }
    const { outline, hole } = paths(view, roi);
    const stem = rotateStem(view, roi);
    const lines = plain ? outline : `${outline} ${hole} M${point(stem.edge)} L${point(stem.knob)}`;
    this.halo.setAttribute("d", lines);
    this.line.setAttribute("d", lines);
    this.body.setAttribute("d", outline);
    this.shade.setAttribute("d", `M0 0H${view.width}V${view.height}H0Z ${outline} ${hole}`);
    const wide = (roi.kind === "rect" ? Math.min(roi.w, roi.h) : roi.r) * view.scale;
    for (const [name, group] of this.handles) {
      toggle(group, isOf(roi, name, wide) && !(plain && name === "rotate"));
      const { x, y } = name === "rotate" ? stem.knob : view.toStage(handleAt(roi, name));
      const out = outward(roi, name);
      for (const circle of group.children) {
        const hit = circle.classList.contains("roi-hit") ? 1 : 0;
        circle.setAttribute("cx", String(x + hit * out.x));
        circle.setAttribute("cy", String(y + hit * out.y));
      }
      group.classList.toggle("held", name === held);
    }
  }
}

/** @param {Element} element @param {boolean} shown */
function toggle(element, shown) {
  element.toggleAttribute("hidden", !shown);
}

/** @param {Roi} roi @param {Handle} name @param {number} wide  CSS pixels: a small ROI keeps one corner, and room to be moved */
function isOf(roi, name, wide) {
  if (name === "rotate") return true;
  if (roi.kind !== "rect") return name === "r" || (name === "r_inner" && roi.kind === "annulus" && wide > 2 * HIT);
  if (name === "r" || name === "r_inner") return false;
  return name === "se" || (name.length === 2 ? wide > 2 * HIT : wide > 5 * HIT);
}

/** Where the area of a handle is moved to. @param {Roi} roi @param {Handle} name */
function outward(roi, name) {
  if (name === "rotate" || name === "r_inner") return { x: 0, y: 0 };
  const { cos, sin } = turnOf(roi.angle_deg);
  const u = name === "r" || name.includes("e") ? OUTWARD : name.includes("w") ? -OUTWARD : 0;
  const v = name === "r" ? 0 : name.includes("s") ? OUTWARD : name.includes("n") ? -OUTWARD : 0;
  return { x: u * cos - v * sin, y: u * sin + v * cos };
}

/** @param {Point} p */
const point = ({ x, y }) => `${x.toFixed(2)} ${y.toFixed(2)}`;

/** @param {View} view @param {Roi} roi */
function paths(view, roi) {
  if (roi.kind === "rect") {
    const corners = /** @type {Handle[]} */ (["nw", "ne", "se", "sw"]).map((name) => point(view.toStage(handleAt(roi, name))));
    return { outline: `M${corners.join("L")}Z`, hole: "" };
  }
  const centre = view.toStage({ x: roi.cx, y: roi.cy });
  const hole = roi.kind === "annulus" && roi.r_inner > 0 ? circle(centre, roi.r_inner * view.scale) : "";
  return { outline: circle(centre, roi.r * view.scale), hole };
}

/** @param {Point} centre @param {number} r */
function circle({ x, y }, r) {
  const half = `a${r} ${r} 0 0 1`;
  return `M${x - r} ${y}${half} ${2 * r} 0${half} ${-2 * r} 0Z`;
}

/** @param {View} view @param {Roi} roi */
function rotateStem(view, roi) {
  const edge = view.toStage(handleAt(roi, "rotate"));
  const { cos, sin } = turnOf(roi.angle_deg);
  return { edge, knob: { x: edge.x + STEM * sin, y: edge.y - STEM * cos } };
}

/** @param {View} view @param {Measure} measure */
function measuring(view, measure) {
  const points = measure.points.map((p) => view.toStage(p));
  const crosses = points.map(({ x, y }) => `M${x - 8} ${y}h16M${x} ${y - 8}v16`).join("");
  if (!measure.isFull) return crosses;
  if (measure.known === "circle") {
    const { x, y, r } = circleThrough(points[0], points[1], points[2]);
    return Number.isFinite(r) ? crosses + circle({ x, y }, r) : crosses;
  }
  return `${crosses}M${point(points[0])}L${point(points[1])}`;
}
