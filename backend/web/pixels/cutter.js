// @ts-check
/**
 * Decodes pictures, cuts ROIs out and encodes the crops: what takes time and memory, and so runs in a worker, one call
 * after the other.
 *
 * @import {Header} from "./header.js"
 * @import {Roi} from "./roi.js"
 * @import {Pose, Search} from "./anchor.js"
 * @import {Box} from "./warp.js"
 * @typedef {{id: number, bare: Blob}} Source  a picture's bytes as a browser may decode them
 * @typedef {Omit<Header, "bare"|"packed"|"longer">} Facts
 * @typedef {{problem: "unreadable"|"format"} | {problem: "undecodable", reason: string}
 *   | {problem: "damaged", damage: import("./bytes.js").Damage} | {problem: "kind", kind: import("./bytes.js").Kind}
 *   | {problem: "too_large", facts: Facts} | {problem: "colours", facts: Facts} | {problem: "transparent", facts: Facts}
 *   | {problem: "other_size", facts: Facts, width: number, height: number}
 *   | {problem: null, facts: Facts, bare: Blob}} Opened
 */

import { CanvasError, HeaderError, KindError } from "./bytes.js";
import { readHeader } from "./header.js";
import { sourceBox, warp } from "./warp.js";

/** The browser's decoder must leave the numbers of the file alone. */
const AS_STORED = /** @type {const} */ ({ colorSpaceConversion: "none", premultiplyAlpha: "none" });
// Decoded pictures that are kept: 4 bytes a pixel, and a ROI is cut out of the same picture again and again.
const KEPT_PIXELS = 80_000_000;
const STRIP_PIXELS = 4_000_000;
const MISSING_GREY = 128;

/** @type {Map<number, Promise<ImageBitmap>>} the picture used last is the last */
const decoded = new Map();

/**
 * @param {Source} source
 * @returns {Promise<ImageBitmap>}
 */
async function bitmapOf(source) {
  const found = decoded.get(source.id) ?? createImageBitmap(source.bare, AS_STORED);
  decoded.delete(source.id);
  decoded.set(source.id, found);
  let bitmap;
  try {
    bitmap = await found;
  } catch (error) {
    decoded.delete(source.id);
    throw error;
  }
  await release(bitmap.width * bitmap.height);
  return bitmap;
}

/**
 * Give back the pictures that were used longest ago, until what is left fits beside the one in use, which is the last.
 * @param {number} inUse  its pixels
 */
async function release(inUse) {
  let pixels = inUse;
  for (const [id, other] of [...decoded].slice(0, -1).reverse()) {
    const bitmap = await other.catch(() => null);
    pixels += bitmap ? bitmap.width * bitmap.height : 0;
    if (bitmap && pixels > KEPT_PIXELS && decoded.get(id) === other) {
      decoded.delete(id);
      bitmap.close();
    }
  }
}

/**
 * @param {ImageBitmap} bitmap
 * @param {Box} box
 * @returns {Uint8ClampedArray}  RGBA, rows first
 */
function pixelsOf(bitmap, box) {
  const context = contextOf(box.width, box.height);
  context.imageSmoothingEnabled = false;
  context.drawImage(bitmap, box.x, box.y, box.width, box.height, 0, 0, box.width, box.height);
  return context.getImageData(0, 0, box.width, box.height).data;
}

/** @param {number} width @param {number} height */
function contextOf(width, height) {
  // Read often, so the pixels stay in memory and no graphics card touches them.
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  if (!context) throw new CanvasError(`${width}×${height}`);
  return context;
}

/**
 * Read and decode a picture, and say what is wrong with it.
 * @param {number} id  its own; what is decoded is kept under it
 * @param {Blob} blob
 * @param {number} maxPixels
 * @returns {Promise<Opened>}
 */
export async function open(id, blob, maxPixels) {
  let header;
  try {
    header = readHeader(await blob.arrayBuffer());
  } catch (error) {
    if (error instanceof HeaderError) return { problem: "damaged", damage: error.damage };
    return error instanceof KindError ? { problem: "kind", kind: error.kind } : { problem: "unreadable" };
  }
  if (!header) return { problem: "format" };
  const { bare: parts, packed, longer, ...facts } = header;
  if (facts.width * facts.height > maxPixels) return { problem: "too_large", facts };
  if (facts.format === "JPEG" && (facts.channels === 4 || facts.bits !== 8)) return { problem: "colours", facts };
  const bare = parts ? new Blob(parts, { type: blob.type }) : blob;
  const decoding = bitmapOf({ id, bare }).catch(reasonOf); // in another thread, while this one unpacks
  const unpacked = packed && (await unpackedSize(packed.parts, packed.size));
  const bitmap = await decoding;
  if (packed && unpacked !== packed.size) return { problem: "damaged", damage: "changed" };
  if (typeof bitmap === "string") return { problem: "undecodable", reason: bitmap };
  const { width, height } = bitmap;
  if (width !== facts.width || height !== facts.height) return { problem: "other_size", facts, width, height };
  if (longer && !(longer.onlyIfGrey && !endsGrey(bitmap)) && !(await showsTheSame(bitmap, new Blob(longer.parts)))) {
    return { problem: "damaged", damage: "missing" };
  }
  if (facts.mayBeTransparent && !isOpaque(bitmap)) return { problem: "transparent", facts };
  return { problem: null, facts, bare };
}

/** @param {unknown} error */
const reasonOf = (error) => (error instanceof Error ? error.message : String(error));

/**
 * How many bytes a zlib stream unpacks to.
 * @param {BlobPart[]} parts
 * @param {number} expected  beyond which nothing is unpacked
 * @returns {Promise<number>}  -1 where it is damaged
 */
async function unpackedSize(parts, expected) {
  let size = 0;
  const reader = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  try {
    for (let read = await reader.read(); !read.done; read = await reader.read()) {
      size += read.value.length;
      if (size > expected) {
        await reader.cancel();
        break;
      }
    }
  } catch (error) {
    if (error instanceof TypeError) return -1; // what the stream says of damaged data
    throw error;
  }
  return size;
}

/** Whether alpha is 255 everywhere. @param {ImageBitmap} bitmap */
function isOpaque(bitmap) {
  for (const strip of stripsOf(bitmap)) {
    const pixels = pixelsOf(bitmap, strip);
    for (let k = 3; k < pixels.length; k += 4) if (pixels[k] !== 255) return false;
  }
  return true;
}

/** Whether the last pixel is as grey as one that is missing of a JPEG. @param {ImageBitmap} bitmap */
function endsGrey(bitmap) {
  const last = pixelsOf(bitmap, { x: bitmap.width - 1, y: bitmap.height - 1, width: 1, height: 1 });
  return last[0] === MISSING_GREY && last[1] === MISSING_GREY && last[2] === MISSING_GREY;
}

/** @param {ImageBitmap} bitmap @param {Blob} blob  a picture of the same size */
async function showsTheSame(bitmap, blob) {
  const other = await createImageBitmap(blob, AS_STORED);
  try {
    for (const strip of stripsOf(bitmap)) {
      const pixels = new Uint32Array(pixelsOf(bitmap, strip).buffer);
      const others = new Uint32Array(pixelsOf(other, strip).buffer);
      for (let k = 0; k < pixels.length; k++) if (pixels[k] !== others[k]) return false;
    }
    return true;
  } finally {
    other.close();
  }
}

/** A picture in parts that fit into memory. @param {{width: number, height: number}} picture @returns {Generator<Box>} */
function* stripsOf({ width, height }) {
  const rows = Math.max(1, Math.floor(STRIP_PIXELS / width));
  for (let y = 0; y < height; y += rows) yield { x: 0, y, width, height: Math.min(rows, height - y) };
}

/**
 * Cut a ROI out.
 * @param {Source} source
 * @param {Roi} roi
 * @returns {Promise<{blob: Blob, width: number, height: number}>}  a PNG
 */
export async function cut(source, roi) {
  const bitmap = await bitmapOf(source);
  const { data, width, height } = roi.crop === "gui" ? await asGui(bitmap, roi) : warped(bitmap, roi);
  const context = contextOf(width, height);
  context.putImageData(new ImageData(data, width, height), 0, 0);
  return { blob: await context.canvas.convertToBlob({ type: "image/png" }), width, height };
}

/** @param {ImageBitmap} bitmap @param {Roi} roi */
function warped(bitmap, roi) {
  const box = sourceBox(roi, bitmap);
  return warp(pixelsOf(bitmap, box), box, roi);
}

/** @param {ImageBitmap} bitmap @param {Roi} roi */
async function asGui(bitmap, roi) {
  const { guiSourceBox, guiWarp } = await import("./gui-crop.js"); // few recipes come from the desktop GUI
  const box = guiSourceBox(roi, bitmap);
  return guiWarp(pixelsOf(bitmap, box), box, roi, bitmap);
}

/**
 * Every pixel of a picture.
 * @param {Source} source
 * @returns {Promise<Uint8ClampedArray>}  RGBA, rows first
 */
export async function pixels(source) {
  const bitmap = await bitmapOf(source);
  return pixelsOf(bitmap, { x: 0, y: 0, width: bitmap.width, height: bitmap.height });
}

/**
 * A part of a picture, made smaller, to be looked at.
 * @param {Source} source
 * @param {Box} box
 * @param {number} width
 * @param {number} height
 * @returns {Promise<ImageBitmap>}
 */
export async function view(source, box, width, height) {
  const bitmap = await bitmapOf(source);
  const size = { resizeWidth: width, resizeHeight: height, resizeQuality: /** @type {const} */ ("medium") };
  return createImageBitmap(bitmap, box.x, box.y, box.width, box.height, size);
}

/**
 * Where an anchor is in a picture.
 * @param {Source} source
 * @param {Source} template
 * @param {Search} search
 * @returns {Promise<Pose & {second: number}>}
 */
export async function find(source, template, search) {
  const { greyOf, locate, searchBox } = await import("./anchor.js"); // most recipes have no anchor
  const wanted = await greyOfAll(template);
  const bitmap = await bitmapOf(source);
  const box = searchBox(search, bitmap);
  return locate(search, wanted, greyOf(pixelsOf(bitmap, box), box.width, box.height), box);
}

/**
 * How well a template fixes a place.
 * @param {Source} template
 * @param {Search} search
 * @param {number} noise  grey values
 */
export async function firmness(template, search, noise) {
  const { firmnessOf } = await import("./anchor.js");
  return firmnessOf(search, await greyOfAll(template), noise);
}

/** @param {Source} source */
async function greyOfAll(source) {
  const { greyOf } = await import("./anchor.js");
  const { width, height } = await bitmapOf(source);
  return greyOf(await pixels(source), width, height);
}
