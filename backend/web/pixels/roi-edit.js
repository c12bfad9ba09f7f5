// @ts-check
/**
 * How a ROI changes when a person drags, types or presses a key: numbers in, numbers out.
 *
 * @import {Roi} from "./roi.js"
 * @typedef {{width: number, height: number}} Size
 * @typedef {{x: number, y: number}} Point  in picture pixels
 * @typedef {"move"|"rotate"|"r"|"r_inner"|"n"|"ne"|"e"|"se"|"s"|"sw"|"w"|"nw"} Handle
 */

import { beyond, snapped, turnOf } from "./roi.js";

const SMALLEST = 4;
const TRIES = 20;

/** @param {number} value @param {number} step */
const rounded = (value, step) => Math.round(value / step) * step;

/** @param {number} value */
const hundredths = (value) => Math.round(value * 100) / 100;

/** @param {number} degrees  @returns {number} -180 < … ≤ 180, in tenths */
export function angleWithin(degrees) {
  const within = (Math.round(degrees * 10) / 10) % 360;
  const angle = within > 180 ? within - 360 : within <= -180 ? within + 360 : within;
  return Math.round(angle * 10) / 10 + 0; // + 0: never -0
}

/**
 * Tidy numbers: whole pixels where they can be, no smaller than can be seen.
 * @param {Roi} roi
 * @returns {Roi}
 */
export function tidy(roi) {
  const r = Math.max(SMALLEST / 2, rounded(roi.r, 0.5));
  const sized = {
    ...roi,
    w: Math.max(SMALLEST, Math.round(roi.w)),
    h: Math.max(SMALLEST, Math.round(roi.h)),
    r,
    r_inner: Math.min(Math.max(0, rounded(roi.r_inner, 0.5)), r - 1),
    angle_deg: angleWithin(roi.angle_deg),
  };
  const placed = snapped(sized);
  return { ...placed, cx: hundredths(placed.cx), cy: hundredths(placed.cy) };
}

/**
 * The whole picture as a ROI.
 * @param {Size} picture
 * @returns {Roi}
 */
export function wholeOf({ width, height }) {
  const r = Math.min(width, height) / 2;
  return { kind: "rect", cx: width / 2, cy: height / 2, w: width, h: height, r, r_inner: Math.floor(r / 2), angle_deg: 0 };
}

/**
 * Another kind of ROI in the same place, about as large.
 * @param {Roi} roi
 * @param {Roi["kind"]} kind
 * @returns {Roi}
 */
export function asKind(roi, kind) {
  if (kind === roi.kind) return roi;
  if (kind === "rect") return { ...roi, kind, w: 2 * roi.r, h: 2 * roi.r };
  if (roi.kind !== "rect") return { ...roi, kind };
  const r = Math.min(roi.w, roi.h) / 2;
  return { ...roi, kind, r, r_inner: r / 2 };
}

/**
 * The ROI, moved by as little as puts it inside the picture. A ROI that is larger than the picture is only centred.
 * @param {Roi} roi
 * @param {Size} picture
 * @returns {Roi}
 */
export function pushedInside(roi, picture) {
  const [x, y] = extent(roi);
  return tidy({ ...roi, cx: between(roi.cx, x, picture.width - x), cy: between(roi.cy, y, picture.height - y) });
}

/**
 * Half of the width and the height that the ROI takes on the picture.
 * @param {Roi} roi
 */
function extent(roi) {
  if (roi.kind !== "rect") return [roi.r, roi.r];
  const { cos, sin } = turnOf(roi.angle_deg);
  return [
    (roi.w * Math.abs(cos) + roi.h * Math.abs(sin)) / 2,
    (roi.w * Math.abs(sin) + roi.h * Math.abs(cos)) / 2,
  ];
}

/** @param {number} value @param {number} low @param {number} high */
const between = (value, low, high) => (low > high ? (low + high) / 2 : Math.min(Math.max(value, low), high));

/**
 * As far from `from` towards `to` as the picture goes.
 * @param {Roi} from
 * @param {Roi} to
 * @param {Size} picture
 * @returns {Roi}
 */
export function asFarAsInside(from, to, picture) {
  if (beyond(to, picture) <= beyond(from, picture)) return to;
  let [low, high, best] = [0, 1, from];
  for (let n = 0; n < TRIES; n++) {
    const middle = (low + high) / 2;
    const tried = tidy(mixed(from, to, middle));
    if (beyond(tried, picture) <= beyond(from, picture)) [low, best] = [middle, tried];
    else high = middle;
  }
  return best;
}

/** @param {Roi} from @param {Roi} to @param {number} share @returns {Roi} */
function mixed(from, to, share) {
  const roi = { ...to };
  for (const name of /** @type {const} */ (["cx", "cy", "w", "h", "r", "r_inner"])) roi[name] = from[name] + share * (to[name] - from[name]);
  roi.angle_deg = from.angle_deg + share * angleWithin(to.angle_deg - from.angle_deg);
  return roi;
}

/**
 * Where a handle sits, in picture pixels. `rotate` sits on the upper edge; the screen draws it further out.
 * @param {Roi} roi
 * @param {Handle} handle
 * @returns {Point}
 */
export function handleAt(roi, handle) {
  const [signX, signY] = signs(handle);
  if (handle === "rotate") return onPicture(roi, 0, roi.kind === "rect" ? -roi.h / 2 : -roi.r);
  if (handle === "r") return onPicture(roi, roi.r, 0);
  if (handle === "r_inner") return onPicture(roi, -roi.r_inner, 0);
  return onPicture(roi, (signX * roi.w) / 2, (signY * roi.h) / 2);
}

/** @param {Handle} handle  @returns {[number, number]} which edges it moves: -1, 0 or 1, across and down */
function signs(handle) {
  if (handle.length > 2 || handle === "r") return [0, 0];
  const x = handle.includes("e") ? 1 : handle.includes("w") ? -1 : 0;
  const y = handle.includes("s") ? 1 : handle.includes("n") ? -1 : 0;
  return [x, y];
}

/** @param {Roi} roi @param {number} u @param {number} v  along and across the ROI, from its centre @returns {Point} */
function onPicture(roi, u, v) {
  const { cos, sin } = turnOf(roi.angle_deg);
  return { x: roi.cx + u * cos - v * sin, y: roi.cy + u * sin + v * cos };
}

/**
 * The ROI after a handle was dragged.
 * @param {Roi} start  as it was when the drag began
 * @param {Handle} handle
 * @param {Point} from  where the drag began
 * @param {Point} to  where it is now
 * @param {Size} picture
 * @param {boolean} coarse  angles in steps of 15°
 * @returns {Roi}
 */
export function dragged(start, handle, from, to, picture, coarse = false) {
  if (handle === "move") {
    return pushedInside({ ...start, cx: start.cx + to.x - from.x, cy: start.cy + to.y - from.y }, picture);
  }
  const { cos, sin } = turnOf(start.angle_deg);
  const [x, y] = [to.x - from.x, to.y - from.y];
  const [alongX, alongY] = [x * cos + y * sin, y * cos - x * sin];
  let next = start;
  if (handle === "rotate") {
    const turned = Math.atan2(to.y - start.cy, to.x - start.cx) - Math.atan2(from.y - start.cy, from.x - start.cx);
    const angle = start.angle_deg + (turned * 180) / Math.PI;
    next = { ...start, angle_deg: coarse ? rounded(angle, 15) : angle };
    const pushed = pushedInside(next, picture);
    if (beyond(pushed, picture) === 0) return pushed;
  } else if (handle === "r") {
    next = { ...start, r: Math.max(start.r + alongX, start.kind === "annulus" ? start.r_inner + 1 : 0) };
  } else if (handle === "r_inner") {
    next = { ...start, r_inner: start.r_inner - alongX };
  } else {
    const [signX, signY] = signs(handle);
    const w = Math.max(SMALLEST, Math.round(start.w + signX * alongX));
    const h = Math.max(SMALLEST, Math.round(start.h + signY * alongY));
    const centre = onPicture(start, (signX * (w - start.w)) / 2, (signY * (h - start.h)) / 2);
    next = { ...start, w, h, cx: centre.x, cy: centre.y };
  }
  return asFarAsInside(start, tidy(next), picture);
}

/** @param {Roi} one @param {Roi} other */
export function same(one, other) {
  return /** @type {const} */ (["kind", "cx", "cy", "w", "h", "r", "r_inner", "angle_deg"]).every((name) => one[name] === other[name]);
}
