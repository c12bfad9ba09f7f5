// @ts-check
/**
 * `<roi-editor>`: a picture, and a ROI on it to drag, to nudge by keys, and to type in numbers.
 *
 *     const editor = document.createElement("roi-editor");
 *     editor.picture = await openPicture(file);
 *     editor.roi = roi;                    // null is the whole picture
 *     editor.addEventListener("roi-change", ({ detail }) => …);       // a Roi, after each change, also during a drag
 *     editor.addEventListener("scale-measured", ({ detail }) => …);   // {mm_per_px, pixels, mm}
 *
 * `labels` replaces texts, by the names in LABELS.
 *
 * @import {Picture} from "./picture.js"
 * @import {Roi} from "./roi.js"
 * @import {Handle, Point} from "./roi-edit.js"
 */

import { angleWithin, asFarAsInside, asKind, dragged, pushedInside, same, tidy, wholeOf } from "./roi-edit.js";
import { Overlay } from "./roi-overlay.js";
import { View } from "./roi-view.js";
import { beyond } from "./roi.js";

export const LABELS = {
  stage: "ROI on the picture. Arrows move it by 1 pixel, with Shift by 10; [ and ] turn it by 0.1°; + and − zoom; drag with Space to move the picture.",
  kind: "Kind",
  rect: "Rectangle",
  circle: "Circle",
  annulus: "Ring",
  cx: "Centre x (px)",
  cy: "Centre y (px)",
  w: "Width (px)",
  h: "Height (px)",
  r: "Radius (px)",
  r_inner: "Inner radius (px)",
  angle_deg: "Angle (°)",
  whole: "Whole picture",
  fit: "Show all",
  closer: "Zoom in",
  farther: "Zoom out",
  undo: "Undo",
  redo: "Redo",
  measure: "Measure the scale",
  length: "Length of the line (mm)",
  measure_first: "Click on the first end of a length that you know.",
  measure_second: "Click on its other end.",
  measure_length: "Type how long the line is in millimetres; it has {pixels} pixels.",
  measured: "1 pixel is {mm_per_px} mm.",
  outside: "The ROI reaches {pixels} pixels beyond the picture.",
  now: "Centre {cx}, {cy}; {size} pixels; {angle_deg}°.",
};

const FIELDS = /** @type {const} */ (["cx", "cy", "w", "h", "r", "r_inner", "angle_deg"]);
const MOST_UNDONE = 200;
const ARROWS = /** @type {Record<string, [number, number]>} */ ({
  ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
});

/** The style sheet, once for the page. */
function linkStyle() {
  const href = new URL("./roi-editor.css", import.meta.url).href;
  if ([...document.styleSheets].some((sheet) => sheet.href === href) || document.querySelector(`link[href="${href}"]`)) return;
  const link = document.createElement("link");
  [link.rel, link.href] = ["stylesheet", href];
  document.head.append(link);
}

/**
 * @template {keyof HTMLElementTagNameMap} Name
 * @param {Name} name
 * @param {Record<string, string>} [attributes]
 * @param {...(Node|string)} children
 * @returns {HTMLElementTagNameMap[Name]}
 */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export class RoiEditor extends HTMLElement {
  constructor() {
    super();
    /** @type {Record<string, string>} */
    this.texts = { ...LABELS };
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
    /** @type {Point[]|null} null where nothing is measured */
    this.measuring = null;
    this.canvas = element("canvas", { "aria-hidden": "true" });
    this.overlay = new Overlay();
    this.stage = element("div", { class: "roi-stage", tabindex: "0", role: "application" }, this.canvas, this.overlay.root);
    this.view = new View(this.canvas, () => this.drawOverlay());
    this.says = element("p", { class: "roi-says", role: "status" });
    this.sizes = new ResizeObserver(() => this.view.resized());
    this.listen();
  }

  connectedCallback() {
    linkStyle();
    if (!this.firstChild) this.build();
    this.sizes.observe(this.stage);
  }

  disconnectedCallback() {
    this.sizes.disconnect();
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

  /** The ROI; null where there is none, which is only before there is a picture. */
  get roi() { return this.shown; }

  /** @param {Roi|null} roi */
  set roi(roi) {
    const next = roi ?? (this.picture && wholeOf(this.picture));
    if (this.shown && next && same(this.shown, next)) return;
    this.shown = next && { ...next };
    this.done = [];
    this.undone = [];
    this.refresh();
  }

  get labels() { return this.texts; }

  /** @param {Partial<typeof LABELS>} labels */
  set labels(labels) {
    this.texts = { ...LABELS, ...labels };
    if (this.firstChild) this.build();
  }

  build() {
    const { texts } = this;
    /** @param {string} name @param {() => void} action */
    const button = (name, action) => {
      const made = element("button", { type: "button" }, texts[name]);
      made.addEventListener("click", action);
      return made;
    };
    this.stage.setAttribute("aria-label", texts.stage);
    const options = ["rect", "circle", "annulus"].map((kind) => element("option", { value: kind }, texts[kind]));
    this.kinds = element("select", { "aria-label": texts.kind }, ...options);
    this.kinds.addEventListener("change", () => {
      const kind = /** @type {Roi["kind"]} */ (this.kinds?.value);
      if (this.shown) this.change(this.inside(asKind(this.shown, kind)));
    });
    this.undoButton = button("undo", () => this.undo());
    this.redoButton = button("redo", () => this.redo());
    this.measureButton = button("measure", () => this.startMeasuring());
    const tools = element(
      "div", { class: "roi-tools" }, this.kinds,
      button("whole", () => this.picture && this.change(wholeOf(this.picture))),
      this.undoButton, this.redoButton,
      button("farther", () => this.view.zoom(1 / 1.5)), button("closer", () => this.view.zoom(1.5)), button("fit", () => this.view.fit()),
      this.measureButton,
    );
    /** @type {Map<string, HTMLInputElement>} */
    this.fields = new Map();
    for (const name of FIELDS) {
      const step = name === "angle_deg" ? "0.1" : name === "w" || name === "h" ? "1" : "0.5";
      const input = element("input", { type: "number", step, inputmode: "decimal", "data-field": name });
      input.addEventListener("change", () => this.typed(name, input.valueAsNumber));
      this.fields.set(name, input);
    }
    this.length = element("input", { type: "number", step: "any", min: "0", inputmode: "decimal", "data-field": "length" });
    this.length.addEventListener("change", () => this.finishMeasuring());
    const labelled = [...this.fields].map(([name, input]) => element("label", {}, texts[name], input));
    this.lengthLabel = element("label", {}, texts.length, this.length);
    const numbers = element("div", { class: "roi-numbers" }, ...labelled, this.lengthLabel);
    this.replaceChildren(this.stage, tools, numbers, this.says);
    this.refresh();
  }

  listen() {
    const { stage } = this;
    stage.addEventListener("pointerdown", (event) => this.pressed(event));
    stage.addEventListener("pointermove", (event) => this.movedTo(event));
    for (const name of /** @type {const} */ (["pointerup", "pointercancel"])) stage.addEventListener(name, (event) => this.released(event));
    stage.addEventListener("wheel", (event) => {
      event.preventDefault();
      const { x, y } = this.onStage(event);
      this.view.zoom(Math.exp(-event.deltaY * (event.deltaMode === 0 ? 0.0015 : 0.05)), x, y);
    }, { passive: false });
    stage.addEventListener("keydown", (event) => this.key(event));
    stage.addEventListener("keyup", (event) => {
      if (event.key === " ") this.space = false;
    });
    stage.addEventListener("blur", () => {
      this.space = false;
    });
  }

  /** @param {MouseEvent} event  @returns {Point} in CSS pixels of the stage */
  onStage(event) {
    const { left, top } = this.stage.getBoundingClientRect();
    return { x: event.clientX - left, y: event.clientY - top };
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
    if (!drag || drag.pointer !== event.pointerId) return;
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
    if (event.type === "pointercancel") this.cancelDrag();
    else if (drag.kind === "edit") this.remember(drag.start);
    this.endDrag();
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
    else if (event.key === "Escape" && (this.drag || this.measuring)) this.escape();
    else if (control && event.key.toLowerCase() === "z") event.shiftKey ? this.redo() : this.undo();
    else if (control && event.key.toLowerCase() === "y") this.redo();
    else if (control) return;
    else if (arrow) this.nudge({ ...shown, cx: shown.cx + arrow[0] * step, cy: shown.cy + arrow[1] * step }, event.repeat);
    else if (event.key === "[" || event.key === "]") this.nudge({ ...shown, angle_deg: shown.angle_deg + (event.key === "]" ? 0.1 : -0.1) }, event.repeat);
    else if (event.key === "+" || event.key === "-") this.view.zoom(event.key === "+" ? 1.25 : 0.8);
    else if (event.key === "0") this.view.fit();
    else return;
    event.preventDefault();
  }

  escape() {
    this.cancelDrag();
    this.stopMeasuring();
  }

  /** @param {Roi} roi @param {boolean} repeated  by a key that is held down: undone in one step */
  nudge(roi, repeated) {
    if (this.drag) return;
    this.change(this.inside(roi), repeated);
    this.sayWhere();
  }

  /** @param {typeof FIELDS[number]} name @param {number} value */
  typed(name, value) {
    if (this.shown && Number.isFinite(value)) this.change(this.inside({ ...this.shown, [name]: name === "angle_deg" ? angleWithin(value) : value }));
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
    const before = this.done.pop();
    if (before) this.step(before, this.undone);
  }

  redo() {
    const after = this.undone.pop();
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

  startMeasuring() {
    if (this.measuring) return this.stopMeasuring();
    this.measuring = [];
    this.stage.classList.add("measuring");
    this.say(this.texts.measure_first);
    this.refresh();
  }

  /** @param {Point} point */
  measureAt(point) {
    if (!this.measuring || this.measuring.length === 2) this.measuring = [];
    this.measuring.push(point);
    if (this.measuring.length === 1) this.say(this.texts.measure_second);
    else {
      this.say(this.texts.measure_length, { pixels: this.measuredPixels().toFixed(1) });
      this.refresh();
      this.length?.focus({ preventScroll: true });
    }
  }

  measuredPixels() {
    const [a, b] = /** @type {Point[]} */ (this.measuring);
    return Math.hypot(a.x - b.x, a.y - b.y);
  }

  finishMeasuring() {
    const mm = this.length?.valueAsNumber ?? NaN;
    if (this.measuring?.length !== 2 || !(mm > 0)) return;
    const pixels = this.measuredPixels();
    if (pixels < 1) return this.say(this.texts.measure_first);
    const mm_per_px = Number((mm / pixels).toPrecision(6));
    this.stopMeasuring();
    this.say(this.texts.measured, { mm_per_px });
    this.dispatchEvent(new CustomEvent("scale-measured", { detail: { mm_per_px, pixels, mm }, bubbles: true }));
  }

  stopMeasuring() {
    this.measuring = null;
    if (this.length) this.length.value = "";
    this.stage.classList.remove("measuring");
    this.say("");
    this.refresh();
  }

  /** @param {string} text @param {Record<string, string|number>} [values] */
  say(text, values = {}) {
    this.says.textContent = text.replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
  }

  sayWhere() {
    const roi = this.shown;
    if (!roi) return;
    const size = roi.kind === "rect" ? `${roi.w}×${roi.h}` : `r ${roi.r}`;
    this.say(this.texts.now, { cx: roi.cx, cy: roi.cy, size, angle_deg: roi.angle_deg });
  }

  drawOverlay() {
    const held = this.drag?.kind === "edit" ? this.drag.handle : null;
    this.overlay.draw(this.view, this.picture ? this.shown : null, this.measuring ?? [], held);
  }

  /** Everything that shows the ROI. */
  refresh() {
    this.drawOverlay();
    const { shown, kinds, fields } = this;
    if (!kinds || !fields) return;
    kinds.disabled = !shown;
    if (shown) kinds.value = shown.kind;
    for (const [name, input] of fields) {
      const ofKind = !shown || (shown.kind === "rect" ? !name.startsWith("r") : name !== "w" && name !== "h" && (name !== "r_inner" || shown.kind === "annulus"));
      /** @type {HTMLElement} */ (input.parentElement).hidden = !ofKind;
      input.disabled = !shown;
      const text = shown ? String(shown[/** @type {typeof FIELDS[number]} */ (name)]) : "";
      if (input.value !== text) input.value = text;
    }
    /** @type {HTMLElement} */ (this.lengthLabel).hidden = this.measuring?.length !== 2;
    this.measureButton?.setAttribute("aria-pressed", String(this.measuring !== null));
    if (this.undoButton) this.undoButton.disabled = this.done.length === 0;
    if (this.redoButton) this.redoButton.disabled = this.undone.length === 0;
    const outside = shown && this.picture ? beyond(shown, this.picture) : 0;
    if (outside > 0) this.say(this.texts.outside, { pixels: Math.ceil(outside) });
  }
}

customElements.define("roi-editor", RoiEditor);
