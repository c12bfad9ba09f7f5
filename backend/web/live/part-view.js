// @ts-check
/**
 * A whole picture with all its ROIs: the outline of each in the colour and stroke of its verdict, its heat and its regions.
 * Heatmaps are PNG blobs by now (see `pack` in last-parts.js).
 */
import { fill, s } from "../dom.js";
import { colour, decoded, regionsOf } from "../heat.js";
import { Layers } from "../layers.js";
import { viewOf } from "../pixels/picture.js";
import { cropSize } from "../pixels/roi.js";
import { fixed, t } from "../texts.js";
import { nameOf } from "./tiles.js";

/** @typedef {import("../part.js").Part} Part */
/** @typedef {import("../part.js").RoiVerdict} RoiVerdict */
/** @typedef {import("../pixels/picture.js").Picture} Picture */
/** @typedef {import("../pixels/roi.js").Roi} Roi */

const MOST_PIXELS = 1600;

export class PartView extends Layers {
  /** @param {(roi: RoiVerdict, x: number, y: number) => void} onPoint a click, in pixels of the crop */
  constructor(onPoint) {
    super();
    this.node.addEventListener("click", (/** @type {MouseEvent} */ event) => this.point(event));
    this.onPoint = onPoint;
    this.asked = 0;
    /** @type {{found: RoiVerdict, group: any}[]} */
    this.drawn = [];
    /** By `nameOf`. */
    this.chosen = "";
  }

  /**
   * @param {Picture | null} picture
   * @param {Part | null} part
   * @param {(roi: RoiVerdict) => boolean} hasScale whether areas are known in mm²
   */
  async show(picture, part, hasScale) {
    const number = ++this.asked;
    const shrunk = picture ? Math.min(1, MOST_PIXELS / Math.max(picture.width, picture.height)) : 1;
    const [width, height] = picture ? [Math.round(picture.width * shrunk), Math.round(picture.height * shrunk)] : [0, 0];
    const bitmap = picture && (await viewOf(picture, { x: 0, y: 0, width: picture.width, height: picture.height }, width, height));
    const heats = await Promise.all((part?.rois ?? []).map(heatOf));
    if (number === this.asked) this.draw(picture, bitmap, part, heats, shrunk, hasScale);
    bitmap?.close();
    for (const heat of heats) heat?.close();
  }

  /**
   * @param {Picture | null} picture
   * @param {ImageBitmap | null} bitmap
   * @param {Part | null} part
   * @param {(ImageBitmap | null)[]} heats
   * @param {number} shrunk
   * @param {(roi: RoiVerdict) => boolean} hasScale
   */
  draw(picture, bitmap, part, heats, shrunk, hasScale) {
    this.node.hidden = picture === null;
    if (!picture || !bitmap || !part) return;
    const { rois } = part;
    this.lay(bitmap, picture);
    const context = this.heat.getContext("2d");
    for (const [at, { place }] of rois.entries()) {
      const heat = heats[at];
      if (!heat || !place) continue;
      const crop = cropSize(place);
      const colours = document.createElement("canvas");
      Object.assign(colours, { width: heat.width, height: heat.height });
      colour(colours, heat);
      context.setTransform(shrunk, 0, 0, shrunk, 0, 0);
      context.translate(place.cx, place.cy);
      context.rotate((place.angle_deg * Math.PI) / 180);
      context.drawImage(colours, -crop.width / 2, -crop.height / 2, crop.width, crop.height);
    }
    this.drawn = rois.filter(({ place }) => place).map((found) => ({ found, group: outlined(found, hasScale(found)) }));
    fill(this.drawing, anchorOf(part), this.drawn.map(({ group }) => group));
    this.words(this.chosen);
  }

  /** Show what may be believed now, and which ROI is asked about. @param {string} chosen by `nameOf` */
  words(chosen) {
    this.chosen = chosen;
    for (const { group, found } of this.drawn) {
      group.setAttribute("data-word", found.verdict);
      group.classList.toggle("chosen", nameOf(found.roi) === chosen);
    }
  }

  /** @param {{x: number, y: number} | null} place in the chosen ROI */
  mark(place) {
    this.markIn(place, this.drawing.querySelector(".live-roi.chosen"), Math.max(this.size.width, this.size.height) / 60);
  }

  /** @param {MouseEvent} event */
  point(event) {
    const { x, y } = this.at(event);
    for (const { found } of this.drawn) {
      const at = found.place && inCrop(found.place, x, y);
      if (at) return this.onPoint(found, at.x, at.y);
    }
  }
}

/** @param {RoiVerdict} roi @returns {Promise<ImageBitmap | null>} */
async function heatOf({ reply }) {
  return reply?.heatmap ? decoded(reply.heatmap) : null;
}

/** The anchor where it was found; dashed where nobody may believe it. @param {Part} part */
function anchorOf({ frame, lost, placement }) {
  if (!frame || !placement) return null;
  const { w: width, h: height } = frame;
  const size = Math.max(10, Math.min(width, height) / 6);
  return s(
    "g",
    { class: "live-roi live-anchor", "data-word": lost ? "none" : "", transform: turned(frame, width, height) },
    s("rect", { width, height, class: "halo" }),
    s("rect", { width, height, class: "live-outline" }),
    s("text", { x: 0, y: -size / 3, "font-size": size }, `${t("anchor.title")} ${fixed(placement.score, 2)}`),
  );
}

/** To pixels of a ROI. @param {Roi} roi @param {number} width @param {number} height */
function turned({ cx, cy, angle_deg }, width, height) {
  return `translate(${cx} ${cy}) rotate(${angle_deg}) translate(${-width / 2} ${-height / 2})`;
}

/** @param {RoiVerdict} found @param {boolean} hasScale */
function outlined({ roi: { name }, place: roi, verdict, reply }, hasScale) {
  if (!roi) throw new Error("no ROI is drawn");
  const { width, height } = cropSize(roi);
  const outline = roi.kind === "rect"
    ? () => s("rect", { width, height })
    : () => s("circle", { cx: width / 2, cy: height / 2, r: roi.r });
  const hole = roi.kind === "annulus" ? s("circle", { cx: width / 2, cy: height / 2, r: roi.r_inner, class: "live-outline" }) : null;
  const [halo, line] = [outline(), outline()];
  halo.setAttribute("class", "halo");
  line.setAttribute("class", "live-outline");
  const size = Math.max(10, Math.min(width, height) / 12);
  return s(
    "g",
    { class: "live-roi", "data-word": verdict, transform: turned(roi, width, height) },
    halo, line, hole,
    reply ? regionsOf(reply.regions, width, height, hasScale) : null,
    s("text", { x: size / 3, y: height - size / 2, "font-size": size }, name),
  );
}

/**
 * A place of the picture in pixels of a ROI's crop.
 * @param {Roi} roi
 * @param {number} x
 * @param {number} y
 * @returns {{x: number, y: number} | null} null: outside
 */
function inCrop(roi, x, y) {
  const { width, height } = cropSize(roi);
  const angle = (-roi.angle_deg * Math.PI) / 180;
  const [dx, dy] = [x - roi.cx, y - roi.cy];
  const u = Math.floor(dx * Math.cos(angle) - dy * Math.sin(angle) + width / 2);
  const v = Math.floor(dx * Math.sin(angle) + dy * Math.cos(angle) + height / 2);
  return u >= 0 && v >= 0 && u < width && v < height ? { x: u, y: v } : null;
}
