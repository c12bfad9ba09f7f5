// @ts-check
/**
 * Where a moved part is: the anchor's template is searched in a picture by normalised cross-correlation (NCC), first small and at
 * steps of angle and place, then by Gauss-Newton steps at each larger size (inverse compositional: Baker and Matthews, IJCV 2004),
 * with brightness and contrast left free. docs/crops.md has every step; backend/commands/watch/anchor.py is the same in NumPy.
 *
 * @typedef {{cx: number, cy: number, w: number, h: number, search_px: number, search_deg: number}} Search  the anchor's rectangle in the
 *   reference picture, centre and whole size in pixels, and how far the part may move
 * @typedef {{data: Float64Array, width: number, height: number}} Grey  rows first
 * @typedef {{dx: number, dy: number, angle_deg: number, score: number}} Pose  a point P of the reference picture is at
 *   centre + (dx, dy) + rotation · (P - centre); clockwise; score: NCC of the template there, -1 to 1
 * @typedef {{contrast: number, turned: number, error_px: number}} Firmness  contrast: standard deviation of the template's
 *   grey values; turned: its score with itself turned by 10°; error_px: standard error of the place (Cramér-Rao) in noise
 * @import {Box} from "./warp.js"
 */

import { Level } from "./anchor-level.js";

const COARSE_SIDE = 12; // pixels of the template's shorter side at which the search begins, at least
const MOST_PIXELS = 40_000; // of the template at the finest size
const N_CANDIDATES = 8;
const N_STEPS = 8;

/** @param {Search} search  @returns {number} how many times the picture is halved before the search begins */
function halvings(search) {
  let n = 0;
  while (Math.min(search.w, search.h) / 2 ** (n + 1) >= COARSE_SIDE) n++;
  return n;
}

/**
 * The part of the picture in which the anchor may be.
 * @param {Search} search
 * @param {{width: number, height: number}} picture
 * @returns {Box}
 */
export function searchBox(search, picture) {
  const block = 2 ** halvings(search);
  const reach = Math.hypot(search.w, search.h) / 2 + search.search_px * Math.SQRT2 + 2 * block;
  const left = Math.max(0, Math.floor((search.cx - reach) / block) * block);
  const top = Math.max(0, Math.floor((search.cy - reach) / block) * block);
  const right = Math.min(picture.width, Math.ceil(search.cx + reach));
  const bottom = Math.min(picture.height, Math.ceil(search.cy + reach));
  return { x: left, y: top, width: right - left, height: bottom - top };
}

/**
 * Grey values.
 * @param {Uint8ClampedArray} rgba
 * @param {number} width
 * @param {number} height
 * @returns {Grey}
 */
export function greyOf(rgba, width, height) {
  const data = new Float64Array(width * height);
  for (let k = 0, from = 0; k < data.length; k++, from += 4) data[k] = (77 * rgba[from] + 150 * rgba[from + 1] + 29 * rgba[from + 2]) / 256;
  return { data, width, height };
}

/** Means of 2 by 2 pixels; an odd last row or column is left out. @param {Grey} grey @returns {Grey} */
function halved(grey) {
  const [width, height] = [Math.floor(grey.width / 2), Math.floor(grey.height / 2)];
  const data = new Float64Array(width * height);
  for (let i = 0, to = 0; i < height; i++) {
    for (let j = 0, at = 2 * i * grey.width; j < width; j++, at += 2, to++) {
      const below = at + grey.width;
      data[to] = (grey.data[at] + grey.data[at + 1] + (grey.data[below] + grey.data[below + 1])) / 4;
    }
  }
  return { data, width, height };
}

/**
 * From the smallest size to the finest.
 * @param {Search} search
 * @param {Grey} template
 * @param {Grey} part  of the picture, `searchBox`
 * @param {{x: number, y: number}} origin  of that part
 * @returns {Level[]}
 */
function levelsOf(search, template, part, origin) {
  const levels = [];
  for (let n = 0; n <= halvings(search); n++) {
    levels.push(new Level(search, template, part, 2 ** n, origin));
    [template, part] = [halved(template), halved(part)];
  }
  const finest = levels.findIndex(({ template: { width, height } }) => width * height <= MOST_PIXELS);
  return levels.slice(finest < 0 ? levels.length - 1 : finest).reverse();
}

/**
 * The best ones, of those that mean the same place the best alone.
 * @param {Pose[]} poses
 * @param {Search} search
 * @param {number} n
 */
function distinct(poses, search, n) {
  const radius = Math.hypot(search.w, search.h) / 2;
  /** @param {Pose} a @param {Pose} b */
  const apart = (a, b) => Math.hypot(a.dx - b.dx, a.dy - b.dy) + ((Math.abs(a.angle_deg - b.angle_deg) * Math.PI) / 180) * radius;
  /** @type {Pose[]} */
  const kept = [];
  for (const pose of poses.sort((a, b) => b.score - a.score)) {
    if (kept.every((other) => apart(pose, other) > 0.1 * Math.min(search.w, search.h))) kept.push(pose);
  }
  return kept.slice(0, n);
}

/**
 * The best pose, and the score of the next best one elsewhere.
 * @param {Search} search
 * @param {Grey} template  `search.w` × `search.h`
 * @param {Grey} part  of the picture, `searchBox`
 * @param {{x: number, y: number}} origin  of that part
 * @returns {Pose & {second: number}}  second: -1 where there is none
 */
export function locate(search, template, part, origin) {
  const levels = levelsOf(search, template, part, origin);
  let poses = levels[0].candidates(N_CANDIDATES);
  for (const [n, level] of levels.entries()) {
    poses = distinct(poses.map((pose) => level.refined(pose, N_STEPS)), search, Math.max(2, N_CANDIDATES >> (n + 1)));
  }
  return { ...poses[0], second: poses[1]?.score ?? -1 };
}

/**
 * How well a template fixes a place.
 * @param {Search} search
 * @param {Grey} template
 * @param {number} noise  of every pixel, as a standard deviation of grey values
 * @returns {Firmness}
 */
export function firmnessOf(search, template, noise) {
  const [finest] = levelsOf(search, template, template, { x: search.cx - search.w / 2, y: search.cy - search.h / 2 }).slice(-1);
  return finest.firmness(noise);
}
