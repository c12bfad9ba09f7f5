// @ts-check
/**
 * What a picture's header says, and the picture without what makes browsers change its pixels.
 *
 * Browsers turn a picture by its EXIF orientation whatever they are told, and its colours by ICC profiles and gamma.
 * The service does neither. So these parts are left out before a browser decodes the picture; the compressed pixels stay
 * byte for byte as they are.
 *
 * @typedef {{
 *   format: "PNG"|"JPEG"|"BMP"|"WebP",
 *   width: number, height: number,
 *   bits: number, channels: number,
 *   mayBeTransparent: boolean,
 *   orientation: number,
 *   bare: BlobPart[]|null,
 * }} Header  width and height as stored; bits of a channel; orientation 1..8 of EXIF, 1 is none; bare is null where
 *   nothing had to be left out
 */

/** A header that is damaged or none. */
export class HeaderError extends Error {}

const PNG_KEPT = new Set(["IHDR", "PLTE", "tRNS", "sBIT", "IDAT", "IEND"]);
const WEBP_DROPPED = new Set(["ICCP", "EXIF", "XMP "]);
const ORIENTATION_TAG = 0x0112;

/**
 * @param {ArrayBuffer} content  the whole file
 * @returns {Header|null}  null where it is none of the four formats
 * @throws {HeaderError}
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
    if (error instanceof RangeError) throw new HeaderError("the header is truncated");
    throw error;
  }
  if (!(header.width > 0 && header.height > 0)) throw new HeaderError("the header has no width or height");
  return header;
}

/** @param {Uint8Array} bytes @param {number} at @param {number} length */
function text(bytes, at, length) {
  return String.fromCharCode(...bytes.subarray(at, at + length));
}

/**
 * The parts of a file that are kept; neighbours are joined.
 * @param {Uint8Array<ArrayBuffer>} bytes
 */
function keeper(bytes) {
  /** @type {[number, number][]} */
  const runs = [];
  return {
    /** @param {number} from @param {number} to */
    keep(from, to) {
      const last = runs.at(-1);
      if (last && last[1] === from) last[1] = to;
      else runs.push([from, to]);
    },
    parts: () => runs.map(([from, to]) => bytes.subarray(from, to)),
  };
}

/** @param {Uint8Array<ArrayBuffer>} bytes @param {DataView} view @returns {Header} */
function readPng(bytes, view) {
  const { keep, parts } = keeper(bytes);
  keep(0, 8);
  let [orientation, transparent, dropped] = [1, false, false];
  for (let at = 8; at < bytes.length; ) {
    const end = at + 12 + view.getUint32(at);
    const type = text(bytes, at + 4, 4);
    if (PNG_KEPT.has(type)) keep(at, Math.min(end, bytes.length));
    else dropped = true;
    if (type === "tRNS") transparent = true;
    if (type === "eXIf") orientation = exifOrientation(view, at + 8, end - 4);
    if (type === "IEND") break;
    at = end;
  }
  const colour = view.getUint8(25);
  return {
    format: "PNG",
    width: view.getUint32(16),
    height: view.getUint32(20),
    bits: view.getUint8(24),
    channels: colour === 0 || colour === 4 ? 1 : 3,
    mayBeTransparent: transparent || colour === 4 || colour === 6,
    orientation,
    bare: dropped ? parts() : null,
  };
}

/** @param {Uint8Array<ArrayBuffer>} bytes @param {DataView} view @returns {Header} */
function readJpeg(bytes, view) {
  const { keep, parts } = keeper(bytes);
  keep(0, 2);
  let [width, height, bits, channels, orientation, dropped] = [0, 0, 8, 3, 1, false];
  for (let at = 2; ; ) {
    if (view.getUint8(at) !== 0xff) throw new HeaderError("a marker of the JPEG header is missing");
    const marker = view.getUint8(at + 1);
    if (marker === 0xff) {
      at += 1; // a fill byte
      continue;
    }
    const end = at + 2 + view.getUint16(at + 2);
    // SOF0…SOF15, which name the size, but for DHT, JPG and DAC
    if (marker >= 0xc0 && marker <= 0xcf && marker !== 0xc4 && marker !== 0xc8 && marker !== 0xcc) {
      [bits, height, width, channels] = [view.getUint8(at + 4), view.getUint16(at + 5), view.getUint16(at + 7), view.getUint8(at + 9)];
    }
    if (marker === 0xe1 && text(bytes, at + 4, 6) === "Exif\0\0" && orientation === 1) {
      orientation = exifOrientation(view, at + 10, end);
    }
    if (marker === 0xda) {
      keep(at, bytes.length);
      break;
    }
    // APP0 (JFIF) and APP14 (Adobe) say how the colours are coded. The other APPn and comments say nothing of the pixels.
    const metadata = marker === 0xfe || (marker > 0xe0 && marker <= 0xef && marker !== 0xee);
    if (metadata) dropped = true;
    else keep(at, end);
    at = end;
  }
  return {
    format: "JPEG", width, height, bits, channels, mayBeTransparent: false, orientation, bare: dropped ? parts() : null,
  };
}

/** @param {Uint8Array<ArrayBuffer>} _bytes @param {DataView} view @returns {Header} */
function readBmp(_bytes, view) {
  const core = view.getUint32(14, true) === 12;
  const width = core ? view.getUint16(18, true) : view.getInt32(18, true);
  const height = core ? view.getUint16(20, true) : Math.abs(view.getInt32(22, true)); // negative: the top row is first
  const perPixel = view.getUint16(core ? 24 : 28, true);
  const mayBeTransparent = !core && (perPixel === 16 || perPixel === 32);
  return { format: "BMP", width, height, bits: 8, channels: 3, mayBeTransparent, orientation: 1, bare: null };
}

/** @param {Uint8Array<ArrayBuffer>} bytes @param {DataView} view @returns {Header} */
function readWebp(bytes, view) {
  const { keep, parts } = keeper(bytes);
  /** @type {{width: number, height: number}|null} */
  let size = null;
  let [orientation, mayBeTransparent, dropped, kept] = [1, false, false, 4];
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
  if (!size) throw new HeaderError("the file has no picture");
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

/**
 * @param {DataView} view
 * @param {number} start  of the TIFF header
 * @param {number} end
 * @returns {number} 1..8; 1 also where there is none, or EXIF is damaged
 */
function exifOrientation(view, start, end) {
  const last = Math.min(end, view.byteLength);
  if (start + 8 > last) return 1;
  const order = view.getUint16(start);
  if (order !== 0x4949 && order !== 0x4d4d) return 1;
  const little = order === 0x4949;
  const folder = start + view.getUint32(start + 4, little);
  if (folder + 2 > last) return 1;
  const entries = view.getUint16(folder, little);
  for (let n = 0; n < entries; n++) {
    const entry = folder + 2 + 12 * n;
    if (entry + 12 > last) return 1;
    if (view.getUint16(entry, little) === ORIENTATION_TAG) {
      const value = view.getUint16(entry + 8, little);
      return value >= 1 && value <= 8 ? value : 1;
    }
  }
  return 1;
}
