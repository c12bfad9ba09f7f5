// @ts-check
/** A picture, its heat above it, and a drawing above both. */
import { h, s } from "./dom.js";

export class Layers {
  constructor() {
    this.picture = h("canvas", { class: "heat-layer" });
    this.heat = h("canvas", { class: "heat-layer heat-colours" });
    this.drawing = s("svg", { class: "heat-layer", "aria-hidden": "true" });
    this.node = h("div.heat", { hidden: true }, this.picture, this.heat, this.drawing);
    this.size = { width: 1, height: 1 };
  }

  /**
   * Show a picture, without heat.
   * @param {ImageBitmap} bitmap
   * @param {{width: number, height: number}} size of the picture, of which the bitmap may be a smaller copy: in its pixels the drawing is
   */
  lay(bitmap, { width, height }) {
    this.size = { width, height };
    for (const canvas of [this.picture, this.heat]) Object.assign(canvas, { width: bitmap.width, height: bitmap.height });
    this.node.style.aspectRatio = `${width} / ${height}`;
    this.node.style.setProperty("--ratio", String(width / height));
    this.picture.getContext("2d").drawImage(bitmap, 0, 0);
    this.drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
  }

  /** @param {boolean} visible */
  set visible(visible) {
    this.node.classList.toggle("bare", !visible);
  }

  /** Where an event is, in pixels of the picture. @param {MouseEvent} event */
  at(event) {
    const { left, top, width, height } = this.picture.getBoundingClientRect();
    return { x: ((event.clientX - left) / width) * this.size.width, y: ((event.clientY - top) / height) * this.size.height };
  }

  /**
   * Mark the place that is asked about, and no other.
   * @param {{x: number, y: number} | null} place
   * @param {any} group of the drawing, in whose pixels the place is
   * @param {number} r
   */
  markIn(place, group, r) {
    this.drawing.querySelector(".heat-place")?.remove();
    if (place) group?.append(s("g", { class: "heat-place", transform: `translate(${place.x} ${place.y})` }, s("circle", { r, class: "halo" }), s("circle", { r })));
  }
}
