// @ts-check
/**
 * What was found, over the picture: heat from the threshold on, and the outlines of regions with their areas.
 *
 * Grey 128 of the heatmap is the threshold (`heatmap=threshold` of `/infer`). What lies below stays as it is: a good part looks
 * as it does in the picture.
 */
import { fill, s } from "./dom.js";
import { Layers } from "./layers.js";
import { number, t } from "./texts.js";

const THRESHOLD_GREY = 128;
const NEAR = [86, 180, 233];
const FAR = [150, 40, 210];
/** Grey from which the colour does not change any more: one and a half times the threshold. */
const FULL_GREY = 192;
const LABELLED = 8;

export class HeatView extends Layers {
  /** @param {(x: number, y: number) => void} onPoint a click, in pixels of the crop */
  constructor(onPoint) {
    super();
    this.node.addEventListener("click", (/** @type {MouseEvent} */ event) => {
      const { x, y } = this.at(event);
      if (x >= 0 && y >= 0 && x < this.size.width && y < this.size.height) onPoint(Math.floor(x), Math.floor(y));
    });
    this.asked = 0;
  }

  /**
   * @param {Blob | null} crop
   * @param {any} reply of `/infer`; null: not judged (yet)
   * @param {boolean} hasScale whether areas are known in mm²
   */
  async show(crop, reply, hasScale) {
    const number = ++this.asked;
    const [picture, grey] = await Promise.all([crop ? createImageBitmap(crop) : null, reply?.heatmap_png_base64 ? decoded(pngOf(reply.heatmap_png_base64)) : null]);
    if (number === this.asked) this.draw(picture, grey, reply, hasScale);
    for (const bitmap of [picture, grey]) bitmap?.close();
  }

  /** @param {ImageBitmap | null} picture @param {ImageBitmap | null} grey @param {any} reply @param {boolean} hasScale */
  draw(picture, grey, reply, hasScale) {
    this.node.hidden = picture === null;
    if (!picture) return;
    this.lay(picture, picture);
    if (grey) colour(this.heat, grey);
    fill(this.drawing, reply ? regionsOf(reply.regions, picture.width, picture.height, hasScale) : null);
  }

  /** @param {{x: number, y: number} | null} place */
  mark(place) {
    this.markIn(place, this.drawing, this.size.width / 40);
  }
}

/** @param {string} base64 @returns {Blob} which takes less memory */
export function pngOf(base64) {
  return new Blob([Uint8Array.from(atob(base64), (character) => character.charCodeAt(0))], { type: "image/png" });
}

/** @param {Blob} png @returns {Promise<ImageBitmap>} its grey values as they are */
export function decoded(png) {
  return createImageBitmap(png, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
}

/** @param {HTMLCanvasElement} canvas @param {ImageBitmap} grey */
export function colour(canvas, grey) {
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
  context.drawImage(grey, 0, 0, canvas.width, canvas.height);
  const image = context.getImageData(0, 0, canvas.width, canvas.height);
  const { data } = image;
  for (let at = 0; at < data.length; at += 4) {
    const value = data[at];
    const share = Math.min(1, Math.max(0, (value - THRESHOLD_GREY) / (FULL_GREY - THRESHOLD_GREY)));
    for (let channel = 0; channel < 3; channel++) data[at + channel] = NEAR[channel] + share * (FAR[channel] - NEAR[channel]);
    data[at + 3] = value < THRESHOLD_GREY ? 0 : 110 + share * 90;
  }
  context.putImageData(image, 0, 0);
}

/** @param {any[]} regions @param {number} width of the picture @param {number} height @param {boolean} hasScale */
export function regionsOf(regions, width, height, hasScale) {
  const drawn = regions.map(({ contour }) => {
    const d = `M${contour.map((/** @type {number[]} */ [x, y]) => `${x + 0.5} ${y + 0.5}`).join("L")}Z`;
    return [s("path", { d, class: "halo" }), s("path", { d })];
  });
  const size = Math.max(8, width / 28);
  /** @type {{left: number, right: number, y: number}[]} */
  const taken = [];
  const labels = [];
  for (const { x, y, w, area_px, area_mm2 } of [...regions].sort((a, b) => b.area_px - a.area_px).slice(0, LABELLED)) {
    const text = hasScale ? t("inspect.area", { area: number(area_mm2) }) : t("inspect.area_px", { area: number(area_px) });
    const isLeft = x + w > width * 0.7;
    const length = text.length * size * 0.62;
    const at = isLeft ? x - size / 4 : x + w + size / 4;
    const box = { left: isLeft ? at - length : at, right: isLeft ? at : at + length, y: Math.min(y + size, height - size / 4) };
    // The largest regions keep their labels; a label that would cover another is left out.
    if (taken.some((other) => box.left < other.right && other.left < box.right && Math.abs(box.y - other.y) < size * 1.1)) continue;
    taken.push(box);
    labels.push(s("text", { x: at, y: box.y, "font-size": size, "text-anchor": isLeft ? "end" : "start" }, text));
  }
  return [drawn, labels];
}

/** In what areas are told. @param {number} scale millimetres per pixel; 1 where nobody measured */
export function unitOf(scale) {
  return scale === 1 ? t("inspect.no_scale") : t("inspect.scale", { mm_per_px: number(scale) });
}
