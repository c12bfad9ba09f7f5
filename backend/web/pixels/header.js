// @ts-check
/**
 * What a picture's header says, and the picture without what makes browsers change its pixels.
 *
 * Browsers turn a picture by its EXIF orientation whatever they are told, and its colours by ICC profiles and gamma.
 * The service does neither. So these parts are left out before a browser decodes the picture; the compressed pixels stay
 * byte for byte as they are.
 *
 * Browsers also show what is left of a damaged picture, with grey or black for the rest. Whether all is there is told here
 * where the header can tell, and else by `packed` and `longer`.
 *
 * @typedef {{
 *   format: "PNG"|"JPEG"|"BMP"|"WebP",
 *   width: number, height: number,
 *   bits: number, channels: number,
 *   mayBeTransparent: boolean,
 *   orientation: number,
 *   bare: BlobPart[]|null,
 *   packed?: {parts: BlobPart[], size: number},
 *   longer?: {parts: BlobPart[], onlyIfGrey: boolean},
 * }} Header  width and height as stored; bits of a channel; orientation 1..8 of EXIF, 1 is none; bare is null where
 *   nothing had to be left out; packed is a zlib stream and the bytes that it must unpack to; longer is the picture with
 *   more data at its end, which shows other pixels only where some are missing (with onlyIfGrey: of that kind the last
 *   pixel is grey where some are missing)
 */

import { exifOrientation, HeaderError, keeper, KindError, text } from "./bytes.js";
import { readJpeg } from "./jpeg.js";

const PNG_KEPT = new Set(["IHDR", "PLTE", "tRNS", "sBIT", "IDAT", "IEND"]);
const ADAM7 = [[0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2]];
const WEBP_DROPPED = new Set(["ICCP", "EXIF", "XMP "]);

/**
 * @param {ArrayBuffer} content  the whole file
 * @returns {Header|null}  null where it is none of the four formats
 * @throws {HeaderError}
 * @throws {KindError}
 */
export function readHeader(content) {
  const bytes = new Uint8Array(content);
  const view = new DataView(content);
  const read = text(bytes, 0, 8) === "\x89PNG\r\n\x1a\n" ? readPng
    : text(bytes, 0, 3) === "\xff\xd8\xff" ? readJpeg
    : text(bytes, 0, 2) === "BM" ? readBmp
    : text(bytes, 0, 4) === "RIFF" && text(bytes, 8, 4) === "WEBP" ? readWebp
    : null;
  if (!read) return null;
  let header;
  try {
    header = read(bytes, view);
  } catch (error) {
    if (error instanceof RangeError) throw new HeaderError("header_ends");
    throw error;
  }
  if (!(header.width > 0 && header.height > 0)) throw new HeaderError("no_size");
  return header;
}

/** @param {Uint8Array<ArrayBuffer>} bytes @param {DataView} view @returns {Header} */
function readPng(bytes, view) {
  const { keep, parts } = keeper(bytes);
  keep(0, 8);
  /** @type {BlobPart[]} */
  const packed = [];
  let [orientation, transparent, dropped] = [1, false, false];
  for (let at = 8, type = ""; type !== "IEND"; ) {
    const end = at + 12 + view.getUint32(at);
    type = text(bytes, at + 4, 4);
    if (end > bytes.length) throw new HeaderError("ends_early");
    if (PNG_KEPT.has(type)) keep(at, end);
    else dropped = true;
    if (type === "tRNS") transparent = true;
    if (type === "IDAT") packed.push(bytes.subarray(at + 8, end - 4));
    if (type === "eXIf") orientation = exifOrientation(view, at + 8, end - 4);
    at = end;
  }
  const colour = view.getUint8(25);
  const [width, height, bits] = [view.getUint32(16), view.getUint32(20), view.getUint8(24)];
  const samples = colour === 2 ? 3 : colour === 6 ? 4 : colour === 4 ? 2 : 1; // a palette's index is one
  return {
    format: "PNG",
    width,
    height,
    bits,
    channels: colour === 0 || colour === 4 ? 1 : 3,
    mayBeTransparent: transparent || colour === 4 || colour === 6,
    orientation,
    bare: dropped ? parts() : null,
    packed: { parts: packed, size: unpackedSize(width, height, bits * samples, view.getUint8(28) === 1) },
  };
}

/**
 * Bytes of a PNG's rows, each with one for its filter.
 * @param {number} width
 * @param {number} height
 * @param {number} perPixel  bits
 * @param {boolean} interlaced  in the seven passes of Adam7
 */
function unpackedSize(width, height, perPixel, interlaced) {
  let size = 0;
  const passes = interlaced ? ADAM7 : [[0, 0, 1, 1]];
  for (const [left, top, across, down] of passes) {
    const columns = Math.ceil((width - left) / across);
    const rows = Math.ceil((height - top) / down);
    if (columns > 0 && rows > 0) size += rows * (1 + Math.ceil((columns * perPixel) / 8));
  }
  return size;
}

/** @param {Uint8Array<ArrayBuffer>} bytes @param {DataView} view @returns {Header} */
function readBmp(bytes, view) {
  const core = view.getUint32(14, true) === 12;
  const width = core ? view.getUint16(18, true) : view.getInt32(18, true);
  const height = core ? view.getUint16(20, true) : Math.abs(view.getInt32(22, true)); // negative: the top row is first
  const perPixel = view.getUint16(core ? 24 : 28, true);
  const compression = core ? 0 : view.getUint32(30, true);
  if (compression !== 0 && compression !== 3) throw new KindError("packed_bmp");
  const row = Math.ceil((width * perPixel) / 32) * 4;
  if (view.getUint32(10, true) + row * height > bytes.length) throw new HeaderError("ends_early");
  const mayBeTransparent = !core && (perPixel === 16 || perPixel === 32);
  return { format: "BMP", width, height, bits: 8, channels: 3, mayBeTransparent, orientation: 1, bare: null };
}

/** @param {Uint8Array<ArrayBuffer>} bytes @param {DataView} view @returns {Header} */
function readWebp(bytes, view) {
  const { keep, parts } = keeper(bytes);
  /** @type {{width: number, height: number}|null} */
  let size = null;
  let [orientation, mayBeTransparent, dropped, kept] = [1, false, false, 4];
  if (8 + view.getUint32(4, true) > bytes.length) throw new HeaderError("ends_early");
  for (let at = 12; at + 8 <= bytes.length; ) {
    const length = view.getUint32(at + 4, true);
    const end = Math.min(at + 8 + length + (length % 2), bytes.length);
    const type = text(bytes, at, 4);
    if (type === "VP8X") {
      mayBeTransparent = (view.getUint8(at + 8) & 0x10) !== 0;
      size = { width: 1 + uint24(view, at + 12), height: 1 + uint24(view, at + 15) };
    } else if (type === "VP8 " && !size) {
      size = { width: view.getUint16(at + 14, true) & 0x3fff, height: view.getUint16(at + 16, true) & 0x3fff };
    } else if (type === "VP8L" && !size) {
      const packed = view.getUint32(at + 9, true);
      size = { width: 1 + (packed & 0x3fff), height: 1 + ((packed >>> 14) & 0x3fff) };
      mayBeTransparent = ((packed >>> 28) & 1) !== 0;
    } else if (type === "EXIF") {
      const start = text(bytes, at + 8, 6) === "Exif\0\0" ? at + 14 : at + 8;
      orientation = exifOrientation(view, start, end);
    }
    if (WEBP_DROPPED.has(type)) dropped = true;
    else {
      keep(at, end);
      kept += end - at;
    }
    at = end;
  }
  if (!size) throw new HeaderError("no_picture");
  return {
    format: "WebP", ...size, bits: 8, channels: 3, mayBeTransparent, orientation,
    bare: dropped ? [webpHead(kept), ...withoutFlags(parts())] : null,
  };
}

/** @param {DataView} view @param {number} at */
function uint24(view, at) {
  return view.getUint16(at, true) | (view.getUint8(at + 2) << 16);
}

/** @param {number} size  bytes that follow the size */
function webpHead(size) {
  const head = new Uint8Array([82, 73, 70, 70, 0, 0, 0, 0, 87, 69, 66, 80]); // "RIFF", the size, "WEBP"
  new DataView(head.buffer).setUint32(4, size, true);
  return head;
}

/**
 * The chunks of a WebP, the first of which no longer announces profile, EXIF and XMP.
 * @param {Uint8Array<ArrayBuffer>[]} parts
 */
function withoutFlags(parts) {
  const [first, ...rest] = parts;
  const changed = first.slice();
  if (text(changed, 0, 4) === "VP8X") changed[8] &= ~0x2c;
  return [changed, ...rest];
}
