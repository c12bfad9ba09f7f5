// @ts-check
/**
 * `<roi-editor>`: a picture, and a ROI on it to drag, to nudge by keys, and to type in numbers.
 *
 *     const editor = document.createElement("roi-editor");
 *     editor.picture = await openPicture(file);
 *     editor.roi = roi;                    // null is the whole picture
 *     editor.addEventListener("roi-change", ({ detail }) => …);       // a Roi, after each change, also during a drag
 *     editor.others = [{id, name, roi}, …]; // other ROIs, to be seen beside it; a click on one is the event "roi-chosen" with its id
 *     editor.placement = {cx, cy, dx, dy, angle_deg};  // the part moved: the picture is shown as if it had not
 *     editor.plain = true;                 // only rectangles that are not turned
 *     editor.addEventListener("scale-measured", ({ detail }) => …);   // {mm_per_px, pixels, mm}
 *
 * @import {Picture} from "./picture.js"
 * @import {Roi} from "./roi.js"
 * @import {Handle, Point} from "./roi-edit.js"
 * @import {Field} from "./roi-panel.js"
 * @import {Known} from "./roi-measure.js"
 * @import {Other} from "./roi-others.js"
 * @import {Pose} from "./roi-view.js"
 */

import { angleWithin, asFarAsInside, asKind, dragged, pushedInside, same, tidy, wholeOf } from "./roi-edit.js";
import { Measure } from "./roi-measure.js";
import { Others } from "./roi-others.js";
import { Overlay } from "./roi-overlay.js";
import { Panel } from "./roi-panel.js";
import { linkStyle } from "./roi-style.js";
import { View } from "./roi-view.js";
import { beyond } from "./roi.js";
import { h } from "../dom.js";
import { t, written } from "../texts.js";

const MOST_UNDONE = 200;
const CLICK = 4; // CSS pixels within which a press is no drag
const ARROWS = /** @type {Record<string, [number, number]>} */ ({
  ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
});

class RoiEditor extends HTMLElement {
  constructor() {
    super();
    /** @type {Roi|null} */
    this.shown = null;
    /** @type {Roi[]} */
    this.undone = [];
    /** @type {Roi[]} */
    this.done = [];
    /** @type {{kind: "edit", handle: Handle, from: Point, start: Roi, pointer: number} | {kind: "pan", x: number, y: number, pointer: number} | null} */
    this.drag = null;
    /** @type {Map<number, Point>} fingers and other pointers on the stage, in CSS pixels */
    this.pointers = new Map();
    this.space = false;
    /** @type {Measure|null} null where nothing is measured */
    this.measuring = null;
    this.canvas = h("canvas", { "aria-hidden": "true" });
    this.overlay = new Overlay();
    this.beside = new Others();
    this.overlay.body.before(this.beside.root);
    this.isPlain = false;
    /** @type {Point} where the pointer went down, in CSS pixels */
    this.down = { x: 0, y: 0 };
    this.stage = /** @type {HTMLElement} */ (h("div.roi-stage", { tabindex: "0", role: "application" }, this.canvas, this.overlay.root));
    this.view = new View(this.canvas, () => this.drawOverlay());
    this.says = h("p", { class: "roi-says", role: "status" });
    this.sizes = new ResizeObserver(([{ contentRect }]) => this.view.resized(contentRect.width, contentRect.height));
    this.listen();
  }

  connectedCallback() {
    linkStyle();
    if (!this.firstChild) this.build();
    this.sizes.observe(this.stage);
    if (this.picture && !this.view.base) this.picture = this.picture; // it was taken out of the page, and is back
  }

  disconnectedCallback() {
    this.sizes.disconnect();
    this.view.forget();
  }

  get picture() { return this.view.picture; }

  /** @param {Picture|null} picture */
  set picture(picture) {
    const fresh = picture && this.shown === null;
    const ready = this.view.show(picture);
    ready.catch((error) => this.say(String(error.message ?? error)));
    if (fresh) this.shown = wholeOf(picture);
    this.refresh();
  }

  /** The ROI; null before there is a picture. */
  get roi() { return this.shown; }

  /** @param {Roi|null} roi */
  set roi(roi) {
    const next = roi ?? (this.picture && wholeOf(this.picture));
    if (this.shown && next && same(this.shown, next)) return;
    this.shown = next && { ...next };
    this.done = [];
    this.undone = [];
    this.say("");
    this.refresh();
  }

  /** @param {Other[]} others */
  set others(others) { this.beside.set(others, this.view); }

  /** @param {Pose|null} placement */
  set placement(placement) { this.view.align(placement); }

  /** @param {boolean} plain */
  set plain(plain) {
    this.isPlain = plain;
    this.refresh();
  }

  build() {
    this.stage.setAttribute("aria-label", t("editor.stage"));
    this.panel = new Panel({
      kind: (kind) => this.shown && this.change(this.inside(asKind(this.shown, kind))),
      number: (field, value) => this.typed(field, value),
      length: (mm) => this.finishMeasuring(mm),
      whole: () => this.picture && this.change(wholeOf(this.picture)),
      undo: () => this.undo(),
      redo: () => this.redo(),
      farther: () => this.view.zoom(1 / 1.5),
      closer: () => this.view.zoom(1.5),
      fit: () => this.view.fit(),
      measure: () => this.startMeasuring("line"),
      circle: () => this.startMeasuring("circle"),
    });
    this.replaceChildren(this.stage, ...this.panel.roots, this.says);
    this.refresh();
  }

  listen() {
    const { stage } = this;
    stage.addEventListener("pointerdown", (event) => this.pressed(event));
    stage.addEventListener("pointermove", (event) => this.movedTo(event));
    for (const name of /** @type {const} */ (["pointerup", "pointercancel", "lostpointercapture"])) stage.addEventListener(name, (event) => this.released(event));
    stage.addEventListener("wheel", (event) => {
      event.preventDefault();
      const { x, y } = this.onStage(event);
      this.view.zoom(Math.exp(-event.deltaY * (event.deltaMode === 0 ? 0.0015 : 0.05)), x, y);
    }, { passive: false });
    stage.addEventListener("keydown", (event) => this.key(event));
    for (const name of ["keyup", "blur"]) stage.addEventListener(name, (event) => {
      this.space &&= event instanceof KeyboardEvent && event.key !== " ";
    });
  }

  /** @param {MouseEvent} event  @returns {Point} in CSS pixels of the stage */
  onStage(event) {
    const box = this.stage.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  /** @param {PointerEvent} event */
  pressed(event) {
    if (!this.picture || event.button > 1) return;
    event.preventDefault(); // no scrolling by the middle button, no selection
    // Without preventScroll the page may scroll under the pointer, and the ROI with it.
    this.stage.focus({ preventScroll: true });
    this.stage.setPointerCapture(event.pointerId);
    const at = this.onStage(event);
    this.pointers.set(event.pointerId, at);
    this.down = at;
    if (this.pointers.size > 1) {
      this.cancelDrag(); // two fingers move the picture
      return;
    }
    const handle = /** @type {Handle|null} */ (event.target instanceof Element ? event.target.getAttribute("data-handle") : null);
    if (this.measuring && event.button === 0 && !this.space) this.measureAt(this.view.toPicture(at.x, at.y));
    else if (handle && this.shown && event.button === 0 && !this.space) {
      this.drag = { kind: "edit", handle, from: this.view.toPicture(at.x, at.y), start: this.shown, pointer: event.pointerId };
    } else {
      this.drag = { kind: "pan", ...at, pointer: event.pointerId };
      this.stage.classList.add("panning");
    }
    this.drawOverlay();
  }

  /** @param {PointerEvent} event */
  movedTo(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before || !this.picture) return;
    const at = this.onStage(event);
    if (this.pointers.size === 2) this.pinched(event.pointerId, before, at);
    this.pointers.set(event.pointerId, at);
    const { drag } = this;
    if (drag?.pointer !== event.pointerId) return;
    if (drag.kind === "pan") {
      this.view.pan(at.x - drag.x, at.y - drag.y);
      [drag.x, drag.y] = [at.x, at.y];
      return;
    }
    const to = this.view.toPicture(at.x, at.y);
    this.set(dragged(drag.start, drag.handle, drag.from, to, this.picture, event.shiftKey));
  }

  /** @param {number} pointer @param {Point} before @param {Point} at */
  pinched(pointer, before, at) {
    const other = [...this.pointers].find(([id]) => id !== pointer)?.[1] ?? at;
    const spread = Math.hypot(at.x - other.x, at.y - other.y) / Math.max(1, Math.hypot(before.x - other.x, before.y - other.y));
    this.view.pan((at.x - before.x) / 2, (at.y - before.y) / 2);
    this.view.zoom(spread, (at.x + other.x) / 2, (at.y + other.y) / 2);
  }

  /** @param {PointerEvent} event */
  released(event) {
    this.pointers.delete(event.pointerId);
    const { drag } = this;
    if (!drag || drag.pointer !== event.pointerId) return;
    if (event.type !== "pointerup") this.cancelDrag();
    else if (drag.kind === "edit") this.remember(drag.start);
    this.endDrag();
    if (event.type === "pointerup") this.clicked(this.onStage(event));
  }

  /** @param {Point} at */
  clicked(at) {
    if (Math.hypot(at.x - this.down.x, at.y - this.down.y) > CLICK) return;
    const other = this.beside.at(this.view.toPicture(at.x, at.y), this.shown);
    if (other) this.dispatchEvent(new CustomEvent("roi-chosen", { detail: other.id, bubbles: true }));
  }

  /** Give up the drag: the ROI is as before. */
  cancelDrag() {
    if (this.drag?.kind === "edit") this.set(this.drag.start);
    this.endDrag();
  }

  endDrag() {
    this.drag = null;
    this.stage.classList.remove("panning");
    this.refresh();
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (!this.shown || !this.picture) return;
    const { shown } = this;
    const arrow = ARROWS[event.key];
    const control = (event.ctrlKey || event.metaKey) && !event.altKey; // AltGr, which types [ and ], counts as both
    const step = event.shiftKey ? 10 : 1;
    if (event.key === " ") this.space = true;
    else if (event.key === "Escape" && (this.drag || this.measuring)) {
      this.cancelDrag();
      this.stopMeasuring();
    } else if (control && event.key.toLowerCase() === "z") event.shiftKey ? this.redo() : this.undo();
    else if (control && event.key.toLowerCase() === "y") this.redo();
    else if (control) return;
    else if (arrow) this.nudge({ ...shown, cx: shown.cx + arrow[0] * step, cy: shown.cy + arrow[1] * step }, event.repeat);
    else if ((event.key === "[" || event.key === "]") && !this.isPlain) this.nudge({ ...shown, angle_deg: shown.angle_deg + (event.key === "]" ? 0.1 : -0.1) }, event.repeat);
    else if (event.key === "+" || event.key === "-") this.view.zoom(event.key === "+" ? 1.25 : 0.8);
    else if (event.key === "0") this.view.fit();
    else return;
    event.preventDefault();
  }

  /** @param {Roi} roi @param {boolean} repeated  by a key that is held down: undone in one step */
  nudge(roi, repeated) {
    if (this.drag) return;
    this.change(this.inside(roi), repeated);
    this.sayWhere();
  }

  /** @param {Field} name @param {number} value */
  typed(name, value) {
    if (this.shown && Number.isFinite(value)) {
      const wanted = name === "angle_deg" ? angleWithin(value) : value;
      this.change(this.inside({ ...this.shown, [name]: wanted }));
      if (Math.abs(this.shown[name] - wanted) > 0.5) this.say(t("editor.bounded", { field: t(`editor.field.${name}`), value: this.shown[name] }));
      else this.sayWhere();
    }
    this.refresh(); // an empty field gets its number back
  }

  /** A ROI that was asked for in numbers, moved inside; if it is too large, as much of it as fits. @param {Roi} wanted */
  inside(wanted) {
    const { picture, shown } = this;
    if (!picture || !shown) return wanted;
    const pushed = pushedInside(tidy(wanted), picture);
    return beyond(pushed, picture) > 0 ? asFarAsInside({ ...shown, kind: pushed.kind }, pushed, picture) : pushed;
  }

  /** A change that is undone as one. @param {Roi} roi @param {boolean} [merged]  with the change before */
  change(roi, merged = false) {
    const before = this.shown;
    this.set(roi);
    if (before && !(merged && this.done.length)) this.remember(before);
    this.refresh();
  }

  /** @param {Roi} before */
  remember(before) {
    if (!this.shown || same(before, this.shown)) return;
    this.done = [...this.done, before].slice(-MOST_UNDONE);
    this.undone = [];
  }

  undo() {
    const before = this.drag ? undefined : this.done.pop();
    if (before) this.step(before, this.undone);
  }

  redo() {
    const after = this.drag ? undefined : this.undone.pop();
    if (after) this.step(after, this.done);
  }

  /** @param {Roi} roi @param {Roi[]} kept  where the present ROI goes */
  step(roi, kept) {
    if (this.shown) kept.push(this.shown);
    this.set(roi);
    this.refresh();
    this.sayWhere();
  }

  /** @param {Roi} roi */
  set(roi) {
    if (this.shown && same(this.shown, roi)) return;
    this.shown = roi;
    this.refresh();
    this.dispatchEvent(new CustomEvent("roi-change", { detail: { ...roi }, bubbles: true }));
  }

  /** @param {Known} known */
  startMeasuring(known) {
    if (this.measuring?.known === known) return this.stopMeasuring();
    this.measuring = new Measure(known);
    this.stage.classList.add("measuring");
    this.say(this.measuring.says);
    this.refresh();
  }

  /** @param {Point} point */
  measureAt(point) {
    const measuring = /** @type {Measure} */ (this.measuring);
    measuring.add(point);
    this.say(measuring.says);
    this.refresh();
    if (measuring.isFull) this.panel?.length.focus({ preventScroll: true });
  }

  /** @param {number} mm */
  finishMeasuring(mm) {
    const mm_per_px = this.measuring?.scale(mm) ?? null;
    if (!this.measuring || mm_per_px === null) return;
    const { pixels } = this.measuring;
    this.stopMeasuring();
    this.say(t("roi.scale_measured", { mm_per_px }));
    this.dispatchEvent(new CustomEvent("scale-measured", { detail: { mm_per_px, pixels, mm }, bubbles: true }));
  }

  stopMeasuring() {
    this.measuring = null;
    this.stage.classList.remove("measuring");
    this.say("");
    this.refresh();
  }

  /** @param {string} text */
  say(text) {
    this.says.textContent = text;
  }

  sayWhere() {
    if (!this.shown) return;
    const { kind, cx, cy, w, h, r, angle_deg } = this.shown;
    this.say(t("editor.now", { cx, cy, size: kind === "rect" ? `${written(w)}×${written(h)}` : `r ${written(r)}`, angle_deg }));
  }

  drawOverlay() {
    const held = this.drag?.kind === "edit" ? this.drag.handle : null;
    this.stage.setAttribute("aria-busy", String(this.view.busy));
    this.overlay.draw(this.view, this.picture ? this.shown : null, this.measuring, held, this.isPlain);
    this.beside.draw(this.view);
  }

  /** Everything that shows the ROI. */
  refresh() {
    this.drawOverlay();
    const { shown } = this;
    this.panel?.show({
      roi: shown,
      canUndo: this.done.length > 0,
      canRedo: this.undone.length > 0,
      measuring: this.measuring?.known ?? null,
      measured: this.measuring?.isFull ?? false,
      plain: this.isPlain,
    });
    const outside = shown && this.picture ? beyond(shown, this.picture) : 0;
    if (outside > 0) this.say(t("editor.outside", { pixels: Math.ceil(outside) }));
  }
}

customElements.define("roi-editor", RoiEditor);
