// @ts-check
/**
 * `<score-histogram>`: good scores above the axis, bad ones below it, and the threshold as a line to drag or to move by keys.
 *
 *     histogram.scores = {good: [0.41, …], bad: [0.72, …]};
 *     histogram.threshold = 0.55;
 *     histogram.addEventListener("threshold-change", ({ detail }) => …);   // a number, also during a drag
 */
import { fill, s } from "./dom.js";
import { number, t } from "./texts.js";

/** CSS pixels; the width is that of the element. */
const SIZE = { height: 320, side: 18, axis: 165, most: 125 };
const BIN_WIDTH = 20;
/** Up to so many in a bin, each score is a cell of its own. */
const CELLS = 26;
const STEPS = 400;

/** @typedef {{good: number[], bad: number[]}} Scores */

class ScoreHistogram extends HTMLElement {
  constructor() {
    super();
    /** @type {Scores} */
    this.shown = { good: [], bad: [] };
    this.value = 0;
    /** @type {[number, number]} */
    this.range = [0, 1];
    this.editable = true;
    this.bars = s("g");
    this.ticks = s("g", { class: "hist-ticks" });
    this.handle = s(
      "g",
      { class: "hist-line", role: "slider", tabindex: "0", "aria-orientation": "horizontal", "aria-label": t("nav.threshold") },
      s("rect", { class: "hist-grip", x: -26, y: 0, width: 52, height: SIZE.height }),
      s("line", { x1: 0, x2: 0, y1: 26, y2: SIZE.height - 26 }),
      s("path", { class: "hist-knob", d: "M-16 4h32v18l-16 12-16-12z" }),
      s("path", { class: "hist-arrows", d: "M-5 9l-5 5 5 5M5 9l5 5-5 5" }),
    );
    this.legends = [t("threshold.good_above"), t("threshold.bad_below")].map((text, at) => s("text", { class: "hist-side", y: at ? SIZE.height - 34 : 16 }, text));
    this.axis = s("line", { class: "hist-axis", x1: SIZE.side, y1: SIZE.axis, y2: SIZE.axis });
    this.width = 800;
    this.sizes = new ResizeObserver(() => this.resized());
    this.svg = s("svg", { role: "group", "aria-label": t("threshold.histogram") });
    this.dragging = -1;
  }

  get inner() {
    return this.width - 2 * SIZE.side;
  }

  resized() {
    if (!this.clientWidth || this.clientWidth === this.width) return;
    this.width = this.clientWidth;
    this.draw();
    this.place();
  }

  disconnectedCallback() {
    this.sizes.disconnect();
  }

  connectedCallback() {
    this.sizes.observe(this);
    if (this.firstChild) return;
    this.svg.append(
      s("defs", {}, s("pattern", { id: "hist-hatch", width: 8, height: 8, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
        s("rect", { width: 8, height: 8, class: "hist-hatch-ground" }), s("line", { x1: 0, x2: 0, y1: 0, y2: 8, class: "hist-hatch-line" }))),
      this.ticks,
      this.bars,
      this.axis,
      ...this.legends,
      this.handle,
    );
    this.append(this.svg);
    this.svg.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => this.grab(event));
    this.svg.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
      if (this.dragging === event.pointerId) this.move(this.at(event));
    });
    for (const name of ["pointerup", "pointercancel"]) this.svg.addEventListener(name, () => { this.dragging = -1; });
    this.handle.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.key(event));
  }

  /** @param {Scores} scores */
  set scores(scores) {
    this.shown = scores;
    this.fit();
  }

  get threshold() {
    return this.value;
  }

  /** @param {number} value */
  set threshold(value) {
    this.value = value;
    const [low, high] = this.range;
    if (value < low || value > high) this.fit();
    this.place();
  }

  /** @param {boolean} editable */
  set disabled(editable) {
    this.editable = !editable;
    this.handle.setAttribute("aria-disabled", String(editable));
    this.classList.toggle("fixed", editable);
  }

  fit() {
    const all = [...this.shown.good, ...this.shown.bad, ...(this.value ? [this.value] : [])];
    const [low, high] = [Math.min(...all), Math.max(...all)];
    const margin = (high - low || Math.abs(high) || 1) * 0.06;
    this.range = [low - margin, high + margin];
    this.draw();
    this.place();
  }

  /** @param {number} value */
  x(value) {
    const [low, high] = this.range;
    return SIZE.side + ((value - low) / (high - low)) * this.inner;
  }

  draw() {
    const [low, high] = this.range;
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${SIZE.height}`);
    this.axis.setAttribute("x2", String(this.width - SIZE.side));
    const n_bins = Math.max(12, Math.round(this.inner / BIN_WIDTH));
    const count = (/** @type {number[]} */ values) => {
      const bins = new Array(n_bins).fill(0);
      for (const value of values) bins[Math.min(n_bins - 1, Math.max(0, Math.floor(((value - low) / (high - low)) * n_bins)))]++;
      return bins;
    };
    const [good, bad] = [count(this.shown.good), count(this.shown.bad)];
    const most = Math.max(1, ...good, ...bad);
    const width = this.inner / n_bins;
    const unit = Math.min(16, SIZE.most / most);
    const bars = [];
    for (const [bins, name, sign] of /** @type {[number[], string, number][]} */ ([[good, "good", -1], [bad, "bad", 1]])) {
      for (const [bin, n] of bins.entries()) {
        const cells = n > 0 && most <= CELLS ? n : Math.min(n, 1);
        const height = n / Math.max(1, cells) * unit;
        for (let cell = 0; cell < cells; cell++) {
          const y = sign < 0 ? SIZE.axis - (cell + 1) * height : SIZE.axis + cell * height;
          bars.push(s("rect", { class: `hist-${name}`, x: SIZE.side + bin * width + 1, y: y + 1, width: width - 2, height: Math.max(1, height - 2) }));
        }
      }
    }
    fill(this.bars, bars);
    const ticks = [];
    const step = niceStep((high - low) / Math.max(2, this.inner / 110));
    for (let value = Math.ceil(low / step) * step; value <= high; value += step) {
      ticks.push(s("line", { x1: this.x(value), x2: this.x(value), y1: 40, y2: SIZE.height - 26 }));
      ticks.push(s("text", { x: this.x(value), y: SIZE.height - 6, "text-anchor": "middle" }, number(Number(value.toPrecision(6)))));
    }
    fill(this.ticks, ticks);
  }

  place() {
    const [low, high] = this.range;
    const x = this.x(this.value);
    const isLeft = x < this.width / 2;
    this.handle.setAttribute("transform", `translate(${x} 0)`);
    for (const legend of this.legends) { // away from the line, which would hide them on a narrow screen
      legend.setAttribute("x", String(isLeft ? this.width - SIZE.side : SIZE.side));
      legend.setAttribute("text-anchor", isLeft ? "end" : "start");
    }
    this.handle.setAttribute("aria-valuemin", low.toFixed(4));
    this.handle.setAttribute("aria-valuemax", high.toFixed(4));
    this.handle.setAttribute("aria-valuenow", this.value.toFixed(4));
  }

  /** @param {PointerEvent} event */
  grab(event) {
    if (!this.editable) return;
    event.preventDefault();
    this.handle.focus({ preventScroll: true }); // or the page may scroll under the pointer
    this.svg.setPointerCapture(event.pointerId);
    this.dragging = event.pointerId;
    this.move(this.at(event));
  }

  /** @param {PointerEvent} event @returns {number} a score */
  at(event) {
    const { left, width } = this.svg.getBoundingClientRect();
    const x = ((event.clientX - left) / width) * this.width;
    const [low, high] = this.range;
    return low + ((x - SIZE.side) / this.inner) * (high - low);
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const [low, high] = this.range;
    const step = ((high - low) / STEPS) * (event.shiftKey ? 10 : 1);
    /** @type {Record<string, number>} */
    const to = {
      ArrowLeft: this.value - step, ArrowDown: this.value - step, ArrowRight: this.value + step, ArrowUp: this.value + step,
      PageDown: this.value - 20 * step, PageUp: this.value + 20 * step, Home: low, End: high,
    };
    if (!this.editable || to[event.key] === undefined) return;
    event.preventDefault();
    this.move(to[event.key]);
  }

  /** @param {number} value */
  move(value) {
    const [low, high] = this.range;
    this.value = Number(Math.min(high, Math.max(low, value)).toFixed(4));
    this.place();
    this.dispatchEvent(new CustomEvent("threshold-change", { detail: this.value }));
  }

  /** What the line means, for those who do not see it. @param {string} text */
  tell(text) {
    this.handle.setAttribute("aria-valuetext", text);
  }
}

/** @param {number} least @returns {number} 1, 2 or 5 times a power of ten */
export function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(least));
  return ([1, 2, 5].find((factor) => factor * power >= least) ?? 10) * power;
}

customElements.define("score-histogram", ScoreHistogram);
