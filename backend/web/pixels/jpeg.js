// @ts-check
/**
 * A JPEG's header and scans: its size and turn, and whether its scans send all of the picture.
 *
 * Browsers fill what is missing of a JPEG with grey and say nothing. Here the markers tell which coefficients there are;
 * whether the last scan is whole, only a decoder knows: see `longer` of a Header.
 *
 * @import {Header} from "./header.js"
 * @typedef {{marker: number, bits: number, width: number, height: number, sampling: Map<number, [number, number]>}} Frame
 */

import { exifOrientation, HeaderError, keeper, KindError, text } from "./bytes.js";

const COEFFICIENTS = 64;
/** Enough for some blocks by any table, without the byte that begins a marker. */
const MORE_DATA = Uint8Array.from({ length: 512 }, (_, n) => (n * 167 + 91) % 255);

/** @param {number} marker */
const isFrame = (marker) => marker >= 0xc0 && marker <= 0xcf && marker !== 0xc4 && marker !== 0xc8 && marker !== 0xcc;
/**
 * APP0 (JFIF) and APP14 (Adobe) say how colours are coded. The other APPn and comments say nothing of the pixels.
 * @param {number} marker
 */
const isMetadata = (marker) => marker === 0xfe || (marker > 0xe0 && marker <= 0xef && marker !== 0xee);

/**
 * @param {Uint8Array<ArrayBuffer>} bytes
 * @param {DataView} view
 * @returns {Header}
 * @throws {HeaderError}
 * @throws {KindError}
 */
export function readJpeg(bytes, view) {
  const { keep, parts } = keeper(bytes);
  keep(0, 2);
  /** @type {Frame|null} */
  let frame = null;
  let [orientation, dropped, scans, interval, restarts] = [1, false, 0, 0, 0];
  /** @type {Map<number, Int8Array>} by component: the bits that each coefficient still lacks; -1 where it lacks all */
  const lacking = new Map();
  let at = 2;
  for (;;) {
    if (at + 2 > bytes.length) throw new HeaderError("ends_early");
    if (bytes[at] !== 0xff) throw new HeaderError("marker");
    const marker = bytes[at + 1];
    if (marker === 0xd9) break;
    if (marker === 0xff) {
      at += 1; // a fill byte
      continue;
    }
    let end = at + 2 + view.getUint16(at + 2);
    if (isFrame(marker) && !frame) {
      frame = frameAt(view, at, marker);
      for (const name of frame.sampling.keys()) lacking.set(name, new Int8Array(COEFFICIENTS).fill(-1));
    } else if (marker === 0xdd) {
      interval = view.getUint16(at + 4);
    } else if (marker === 0xe1 && text(bytes, at + 4, 6) === "Exif\0\0" && orientation === 1) {
      orientation = exifOrientation(view, at + 10, end);
    } else if (marker === 0xda) {
      if (!frame) throw new HeaderError("early_scan");
      scans += 1;
      readScan(view, at, frame, lacking);
      [end, restarts] = dataAfter(bytes, end);
    }
    if (isMetadata(marker)) dropped = true;
    else keep(at, end);
    at = end;
  }
  if (!frame) throw new HeaderError("ends_early");
  const unsent = [...lacking.values()].flatMap((bits) => [...bits]).filter((bits) => bits !== 0).length;
  const missing = scans === 1 && interval > 0 && restarts < Math.ceil(units(frame) / interval) - 1;
  if (unsent > 0 || missing) throw new HeaderError("ends_early");
  const [kept, tail] = [parts(), bytes.subarray(at)];
  return {
    format: "JPEG",
    width: frame.width,
    height: frame.height,
    bits: frame.bits,
    channels: frame.sampling.size,
    mayBeTransparent: false,
    orientation,
    bare: dropped ? [...kept, tail] : null,
    longer: { parts: [...kept, MORE_DATA, tail], onlyIfGrey: scans === 1 },
  };
}

/** @param {DataView} view @param {number} at @param {number} marker @returns {Frame} */
function frameAt(view, at, marker) {
  if (marker > 0xc2) throw new KindError("rare_jpeg");
  /** @type {Map<number, [number, number]>} */
  const sampling = new Map();
  for (let n = 0; n < view.getUint8(at + 9); n++) {
    const both = view.getUint8(at + 11 + 3 * n);
    sampling.set(view.getUint8(at + 10 + 3 * n), [both >> 4, both & 15]);
  }
  return { marker, bits: view.getUint8(at + 4), height: view.getUint16(at + 5), width: view.getUint16(at + 7), sampling };
}

/**
 * Note which coefficients a scan sends, and to which bit.
 * @param {DataView} view @param {number} at @param {Frame} frame @param {Map<number, Int8Array>} lacking
 */
function readScan(view, at, frame, lacking) {
  const components = view.getUint8(at + 4);
  const after = at + 5 + 2 * components;
  const progressive = frame.marker === 0xc2;
  const [first, last] = progressive ? [view.getUint8(after), view.getUint8(after + 1)] : [0, COEFFICIENTS - 1];
  const low = progressive ? view.getUint8(after + 2) & 15 : 0;
  for (let n = 0; n < components; n++) lacking.get(view.getUint8(at + 5 + 2 * n))?.fill(low, first, last + 1);
}

/**
 * @param {Uint8Array} bytes
 * @param {number} start  of a scan's data
 * @returns {[number, number]} where the marker after the data is, and how many restarts are in them
 */
function dataAfter(bytes, start) {
  let restarts = 0;
  for (let at = bytes.indexOf(0xff, start); at >= 0 && at + 1 < bytes.length; ) {
    const marker = bytes[at + 1];
    if (marker >= 0xd0 && marker <= 0xd7) restarts += 1;
    else if (marker !== 0 && marker !== 0xff) return [at, restarts];
    at = bytes.indexOf(0xff, marker === 0xff ? at + 1 : at + 2);
  }
  throw new HeaderError("ends_early");
}

/** How many units are coded one after the other in a scan of all components. @param {Frame} frame */
function units({ width, height, sampling }) {
  let [across, down] = [8, 8];
  if (sampling.size > 1) {
    across *= Math.max(...[...sampling.values()].map(([h]) => h));
    down *= Math.max(...[...sampling.values()].map(([, v]) => v));
  }
  return Math.ceil(width / across) * Math.ceil(height / down);
}
