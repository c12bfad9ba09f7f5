// @ts-check
/**
 * The picture on the screen: where it lies, how large, and its pixels as sharp as the screen is.
 *
 * @import {Picture} from "./picture.js"
 * @import {Point} from "./roi-edit.js"
 * @typedef {{cx: number, cy: number, dx: number, dy: number, angle_deg: number}} Pose  a part that was turned about (cx, cy) and moved
 */

import { viewOf } from "./picture.js";
import { turnOf } from "./roi.js";

// Bitmaps for the screen: a larger picture is shown reduced, and in full where it is zoomed in.
const MOST_PIXELS = 12_000_000;
const LARGEST_ZOOM = 40;
const MARGIN = 44; // for the handle that rotates, when all of the picture is in sight
const DETAIL_AFTER_MS = 120;

export class View {
  /** @param {HTMLCanvasElement} canvas  fills the stage  @param {() => void} changed  called after it was painted anew */
  constructor(canvas, changed) {
    this.canvas = canvas;
    this.changed = changed;
    /** @type {Picture|null} */
    this.picture = null;
    /** CSS pixels of a picture pixel, and the stage's left top corner in picture pixels. */
    this.scale = 1;
    this.left = 0;
    this.top = 0;
    this.fitted = true;
    /** @type {Pose|null} the picture is shown as if the part had not moved */
    this.pose = null;
    /** The stage in CSS pixels; they need not be whole. */
    this.width = 0;
    this.height = 0;
    this.frame = 0;
    this.detailTimer = 0;
    /** @type {ImageBitmap|null} */
    this.base = null;
    /** @type {{bitmap: ImageBitmap, x: number, y: number, width: number, height: number}|null} */
    this.detail = null;
  }

  /** Whether what is in sight is not yet there, or not yet as sharp as it can be. */
  get busy() { return this.picture !== null && (!this.base || this.isCoarse()); }

  /** @param {Picture|null} picture */
  async show(picture) {
    const sameSize = picture && this.picture && picture.width === this.picture.width && picture.height === this.picture.height;
    this.picture = picture;
    this.forget();
    if (picture && !sameSize) this.fit();
    this.paint();
    if (!picture) return;
    const share = Math.min(1, Math.sqrt(MOST_PIXELS / (picture.width * picture.height)));
    const size = [picture.width, picture.height].map((side) => Math.max(1, Math.round(side * share)));
    const bitmap = await viewOf(picture, { x: 0, y: 0, width: picture.width, height: picture.height }, size[0], size[1]);
    if (this.picture !== picture) {
      bitmap.close();
      return;
    }
    this.base = bitmap;
    this.paint();
  }

  forget() {
    clearTimeout(this.detailTimer);
    this.base?.close();
    this.detail?.bitmap.close();
    this.base = this.detail = null;
  }

  /** @param {Pose|null} pose */
  align(pose) {
    this.pose = pose;
    this.paint();
  }

  /** All of the picture in the middle of the stage. */
  fit() {
    if (!this.picture || !this.width) return;
    const margin = Math.min(MARGIN, this.width / 8, this.height / 6);
    const { width, height } = this.picture;
    this.scale = Math.min((this.width - 2 * margin) / width, (this.height - 2 * margin) / height, LARGEST_ZOOM);
    this.left = (width - this.width / this.scale) / 2;
    this.top = (height - this.height / this.scale) / 2;
    this.fitted = true;
    this.paint();
  }

  /** The stage has another size. @param {number} width @param {number} height  CSS pixels */
  resized(width, height) {
    [this.width, this.height] = [width, height];
    if (this.fitted) this.fit();
    this.paint();
  }

  /** @param {number} factor @param {number} x @param {number} y  the point of the stage that stays where it is */
  zoom(factor, x = this.width / 2, y = this.height / 2) {
    if (!this.picture) return;
    const fitting = Math.min(this.width / this.picture.width, this.height / this.picture.height);
    const scale = Math.min(Math.max(this.scale * factor, Math.min(fitting / 4, 1)), LARGEST_ZOOM);
    this.left += x / this.scale - x / scale;
    this.top += y / this.scale - y / scale;
    this.scale = scale;
    this.moved();
  }

  /** @param {number} x @param {number} y  CSS pixels */
  pan(x, y) {
    this.left -= x / this.scale;
    this.top -= y / this.scale;
    this.moved();
  }

  moved() {
    const { width, height } = /** @type {Picture} */ (this.picture);
    // Some of the picture stays in sight.
    const [across, down] = [this.width / this.scale, this.height / this.scale];
    this.left = Math.min(Math.max(this.left, -0.8 * across), width - 0.2 * across);
    this.top = Math.min(Math.max(this.top, -0.8 * down), height - 0.2 * down);
    this.fitted = false;
    this.paint();
  }

  /** @param {Point} point  in picture pixels  @returns {Point} in CSS pixels of the stage */
  toStage({ x, y }) {
    return { x: (x - this.left) * this.scale, y: (y - this.top) * this.scale };
  }

  /** @param {number} x @param {number} y  CSS pixels of the stage  @returns {Point} in picture pixels */
  toPicture(x, y) {
    return { x: x / this.scale + this.left, y: y / this.scale + this.top };
  }

  paint() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.paintNow();
      this.changed();
    });
  }

  paintNow() {
    const { canvas, picture } = this;
    // A pixel of the canvas is one of the screen: were it as large as the stage, it would be stretched by a part of one.
    const [width, height] = [this.width, this.height].map((side) => Math.floor(side * devicePixelRatio));
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    [canvas.style.width, canvas.style.height] = [width, height].map((side) => `${side / devicePixelRatio}px`);
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    if (!picture || !this.base) return;
    const zoom = this.scale * devicePixelRatio;
    context.setTransform(zoom, 0, 0, zoom, -this.left * zoom, -this.top * zoom);
    if (this.pose) {
      const { cx, cy, dx, dy, angle_deg } = this.pose;
      context.translate(cx, cy);
      context.rotate((-angle_deg * Math.PI) / 180);
      context.translate(-cx - dx, -cy - dy);
    }
    context.imageSmoothingEnabled = zoom < 2; // each pixel of the picture is seen as a square
    context.imageSmoothingQuality = "medium";
    context.drawImage(this.base, 0, 0, picture.width, picture.height);
    if (this.detail) context.drawImage(this.detail.bitmap, this.detail.x, this.detail.y, this.detail.width, this.detail.height);
    clearTimeout(this.detailTimer);
    if (this.isCoarse()) {
      this.detailTimer = setTimeout(() => void this.fetchDetail(), DETAIL_AFTER_MS);
    }
  }

  /** Whether the screen shows more pixels than there are of what is in sight. */
  isCoarse() {
    const { base, picture } = this;
    if (!base || !picture) return false;
    return base.width < picture.width * Math.min(1, this.scale * devicePixelRatio) && !this.detailCovers();
  }

  /** The part of the picture that is in sight, in whole pixels. */
  inSight() {
    const { width, height } = /** @type {Picture} */ (this.picture);
    const corners = [[0, 0], [this.width, 0], [0, this.height], [this.width, this.height]].map(([x, y]) => this.underneath(this.toPicture(x, y)));
    const [xs, ys] = [corners.map((corner) => corner.x), corners.map((corner) => corner.y)];
    const x = Math.min(Math.max(Math.floor(Math.min(...xs)), 0), width - 1);
    const y = Math.min(Math.max(Math.floor(Math.min(...ys)), 0), height - 1);
    const right = Math.min(Math.max(Math.ceil(Math.max(...xs)), x + 1), width);
    const bottom = Math.min(Math.max(Math.ceil(Math.max(...ys)), y + 1), height);
    return { x, y, width: right - x, height: bottom - y };
  }

  /** Which point of the picture is shown where a point would be if the part had not moved. @param {Point} point  @returns {Point} */
  underneath({ x, y }) {
    if (!this.pose) return { x, y };
    const { cx, cy, dx, dy, angle_deg } = this.pose;
    const { cos, sin } = turnOf(angle_deg);
    return { x: cx + dx + (x - cx) * cos - (y - cy) * sin, y: cy + dy + (x - cx) * sin + (y - cy) * cos };
  }

  detailCovers() {
    const [have, need] = [this.detail, this.inSight()];
    if (!have) return false;
    const sharp = have.bitmap.width / have.width >= Math.min(1, this.scale * devicePixelRatio) * 0.99;
    return (
      sharp && have.x <= need.x && have.y <= need.y &&
      have.x + have.width >= need.x + need.width && have.y + have.height >= need.y + need.height
    );
  }

  async fetchDetail() {
    const picture = this.picture;
    if (!picture) return;
    const box = this.inSight();
    const share = Math.min(1, this.scale * devicePixelRatio);
    const bitmap = await viewOf(picture, box, Math.ceil(box.width * share), Math.ceil(box.height * share));
    if (this.picture !== picture) {
      bitmap.close();
      return;
    }
    this.detail?.bitmap.close();
    this.detail = { bitmap, ...box };
    this.paint();
  }
}
