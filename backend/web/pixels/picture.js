// @ts-check
/**
 * Pictures, and the ROIs that are cut out of them: what a person sees is what is judged, pixel for pixel.
 *
 *     const picture = await openPicture(file);                 // PictureError says in a sentence what is wrong with a file
 *     const { blob } = await cutRoi(picture, roi);
 *     form.append("image", blob, "crop.png");
 *
 * Where `selfTest` fails, no picture is opened, so none is cut.
 *
 * @import {Roi} from "./roi.js"
 * @import {Search} from "./anchor.js"
 * @import {Box} from "./warp.js"
 * @import {Opened, Source} from "./cutter.js"
 * @typedef {{
 *   name: string, blob: Blob, width: number, height: number,
 *   format: "PNG"|"JPEG"|"BMP"|"WebP", turned: boolean, bits: number, source: Source,
 * }} Picture  blob: the file as it came; width, height: as stored; turned: EXIF asks to turn it, which nobody does
 * @typedef {{blob: Blob, width: number, height: number}} Crop
 */

import { fixed, t } from "../texts.js";
import { beyond, isWhole } from "./roi.js";
import { warp } from "./warp.js";
import { call } from "./worker.js";

const MAX_PIXELS = 65_000_000; // sensors of 64 megapixels have 64.2 million; the service gets the crop alone
const MAX_BYTES = 256 * 1024 * 1024;

/**
 * A sentence for people about a picture or a ROI.
 *
 * `code` is for programs: "unreadable", "format", "too_large", "transparent", "colours" (of a picture); "sixteen_bits",
 * "outside", "invalid_roi" (of a ROI on it); "browser" (`selfTest` failed).
 */
class PictureError extends Error {
  /** @param {string} code @param {string} message */
  constructor(code, message) {
    super(message);
    this.name = "PictureError";
    this.code = code;
  }
}

let opened = 0;

/**
 * Read a picture onto its stored pixel grid: an EXIF turn, a colour profile and gamma are not applied.
 * @param {Blob} blob  PNG, JPEG, BMP or WebP
 * @param {{name?: string, maxPixels?: number}} [options]  name: for messages; a file has its own
 * @returns {Promise<Picture>}
 * @throws {PictureError}
 */
export async function openPicture(blob, { name = blob instanceof File ? blob.name : "picture", maxPixels = MAX_PIXELS } = {}) {
  const { ok, reason } = await selfTest();
  if (!ok) throw new PictureError("browser", String(reason));
  return openUntested(blob, name, maxPixels);
}

/** @param {Blob} blob @param {string} name @param {number} maxPixels  @returns {Promise<Picture>} */
async function openUntested(blob, name, maxPixels) {
  if (blob.size > MAX_BYTES) {
    throw new PictureError("too_large", t("picture.many_bytes", { name, mebibytes: mebibytes(blob.size), most: mebibytes(MAX_BYTES) }));
  }
  const id = ++opened;
  const found = await call("open", id, blob, maxPixels);
  if (found.problem !== null) throw refusal(found, name, maxPixels);
  const { width, height, format, bits, orientation } = found.facts;
  return { name, blob, width, height, format, bits, turned: orientation !== 1, source: { id, bare: found.bare } };
}

/**
 * What is wrong with a picture, in a sentence.
 * @param {Exclude<Opened, {problem: null}>} found
 * @param {string} name
 * @param {number} maxPixels
 */
function refusal(found, name, maxPixels) {
  switch (found.problem) {
    case "unreadable":
      return new PictureError("unreadable", t("drop.unreadable", { name }));
    case "damaged":
      return new PictureError("unreadable", t("picture.damaged", { name, reason: t(`picture.damage.${found.damage}`) }));
    case "format":
      return new PictureError("format", t("picture.format", { name }));
    case "kind":
      return new PictureError("format", t("picture.kind", { name, kind: t(`picture.kind.${found.kind}`) }));
    case "undecodable":
      return new PictureError("unreadable", t("picture.undecodable", { name, reason: found.reason }));
    case "transparent":
      return new PictureError("transparent", t("picture.transparent", { name }));
  }
  const { width, height, bits, channels } = found.facts;
  if (found.problem === "too_large") {
    return new PictureError("too_large", t("picture.many_pixels", { name, width, height, millions: millions(width * height), most: millions(maxPixels) }));
  }
  if (found.problem === "colours") {
    const kind = channels === 4 ? t("picture.colours.cmyk") : t("picture.colours.deep", { bits });
    return new PictureError("colours", t("picture.colours", { name, kind }));
  }
  return new PictureError("unreadable", t("picture.other_size", { name, width, height, found_width: found.width, found_height: found.height }));
}

/**
 * The canonical ROI: crop and rotation, as the service wants it.
 *
 * A whole picture at 0° goes as the bytes it came in, without its EXIF turn if it had one.
 * @param {Picture} picture
 * @param {Roi} roi
 * @returns {Promise<Crop>}
 * @throws {PictureError}
 */
export async function cutRoi(picture, roi) {
  check(roi);
  if (isWhole(roi, picture)) {
    return { blob: picture.turned ? picture.source.bare : picture.blob, width: picture.width, height: picture.height };
  }
  const outside = roi.crop === "gui" ? 0 : beyond(roi, picture); // the desktop GUI shows black there
  if (outside > 0) {
    const { name, width, height } = picture;
    throw new PictureError("outside", t("picture.outside", { n: Math.ceil(outside), name, width, height }));
  }
  if (picture.bits > 8) throw new PictureError("sixteen_bits", t("picture.deep", { name: picture.name, bits: picture.bits }));
  return call("cut", picture.source, roi);
}

/** @param {Roi} roi */
function check(roi) {
  const sizes = roi.kind === "rect" ? [roi.w, roi.h] : [roi.r];
  const numbers = [roi.cx, roi.cy, roi.angle_deg, ...sizes];
  const ring = roi.kind !== "annulus" || (roi.r_inner >= 0 && roi.r_inner < roi.r);
  if (!numbers.every(Number.isFinite) || sizes.some((size) => size <= 0) || !ring) {
    throw new PictureError("invalid_roi", t("picture.invalid_roi", { roi: JSON.stringify(roi) }));
  }
}

/**
 * A part of a picture to look at, at most as large as `width` × `height`.
 * @param {Picture} picture
 * @param {Box} box  whole pixels inside the picture
 * @param {number} width
 * @param {number} height
 * @returns {Promise<ImageBitmap>}
 */
export function viewOf(picture, box, width, height) {
  return call("view", picture.source, box, width, height);
}

/**
 * Where an anchor is in a picture, with confidence or without.
 * @param {Picture} picture
 * @param {Picture} template
 * @param {Search} search
 */
export function locateIn(picture, template, { cx, cy, w, h, search_px, search_deg }) {
  return call("find", picture.source, template.source, { cx, cy, w, h, search_px, search_deg });
}

/**
 * How well a template fixes place and angle where every pixel has noise of so many grey values.
 * @param {Picture} template
 * @param {Search} search
 * @param {number} noise
 */
export function firmnessOf(template, { cx, cy, w, h, search_px, search_deg }, noise) {
  return call("firmness", template.source, { cx, cy, w, h, search_px, search_deg }, noise);
}

/**
 * Whether this browser leaves pixels as they are. It cuts a ROI out of a known picture and compares every pixel with what
 * must come out. (Protection against fingerprinting, for example, adds noise to all that is read from a canvas.)
 * @returns {Promise<{ok: boolean, reason?: string}>}  of one test for all calls
 */
export function selfTest() {
  tested ??= testOnce();
  return tested;
}

/** @type {Promise<{ok: boolean, reason?: string}>|null} */
let tested = null;

/** @returns {Promise<{ok: boolean, reason?: string}>} */
async function testOnce() {
  try {
    const { wrong, compared } = await wrongPixels();
    if (wrong === 0) return { ok: true };
    return { ok: false, reason: t("picture.changes_pixels", { wrong, compared }) };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return { ok: false, reason: t("picture.cannot_cut", { reason }) };
  }
}

const PATTERN = { width: 64, height: 48 };

async function wrongPixels() {
  const { width, height } = PATTERN;
  const known = new Uint8ClampedArray(width * height * 4);
  for (let k = 0, value = 1; k < known.length; k++) {
    value = (value * 48271) % 2147483647; // Park and Miller's generator
    known[k] = k % 4 === 3 ? 255 : value & 255;
  }
  const picture = await openUntested(bmp(known, width, height), "test.bmp", MAX_PIXELS);
  let [wrong, compared] = [0, 0];
  for (const angle_deg of [0, 33]) {
    const roi = { kind: /** @type {const} */ ("rect"), cx: 32, cy: 24, w: 32, h: 20, r: 0, r_inner: 0, angle_deg };
    const expected = warp(known, { x: 0, y: 0, width, height }, roi).data;
    const crop = await cutRoi(picture, roi);
    const found = await call("pixels", { id: ++opened, bare: crop.blob });
    for (let k = 0; k < expected.length; k += 4) {
      compared += 1;
      if (found[k] !== expected[k] || found[k + 1] !== expected[k + 1] || found[k + 2] !== expected[k + 2]) wrong += 1;
    }
  }
  return { wrong, compared };
}

/**
 * A BMP, which any browser decodes and nothing compresses.
 * @param {Uint8ClampedArray} rgba  rows first
 * @param {number} width  a multiple of 4, so that rows need no padding
 * @param {number} height
 */
function bmp(rgba, width, height) {
  const head = new DataView(new ArrayBuffer(54));
  const size = width * height * 3;
  head.setUint16(0, 0x424d);
  for (const [at, value] of [[2, 54 + size], [10, 54], [14, 40], [18, width], [22, -height], [34, size]]) {
    head.setInt32(at, value, true);
  }
  head.setInt16(26, 1, true);
  head.setInt16(28, 24, true);
  const body = new Uint8Array(size);
  for (let from = 0, to = 0; to < size; from += 4, to += 3) body.set([rgba[from + 2], rgba[from + 1], rgba[from]], to);
  return new Blob([head, body], { type: "image/bmp" });
}

/** @param {number} pixels */
const millions = (pixels) => fixed(pixels / 1e6, 1);

/** @param {number} bytes */
const mebibytes = (bytes) => Math.ceil(bytes / 1024 / 1024);
