// @ts-check
/** What the readers of all formats share: what they refuse, texts and parts of files, and EXIF. */

const ORIENTATION_TAG = 0x0112;

/** @typedef {"ends_early"|"changed"|"missing"|"marker"|"early_scan"|"header_ends"|"no_size"|"no_picture"} Damage */
/** @typedef {"packed_bmp"|"rare_jpeg"} Kind */

/** A file whose header says that it is damaged. */
export class HeaderError extends Error {
  /** @param {Damage} damage  the words are in the catalogue, which a worker does not load */
  constructor(damage) {
    super(damage);
    this.damage = damage;
  }
}

/** A file of a kind that browsers do not read, or each in its own way. */
export class KindError extends Error {
  /** @param {Kind} kind */
  constructor(kind) {
    super(kind);
    this.kind = kind;
  }
}

/** The browser gives no canvas of the size that is the message. */
export class CanvasError extends Error {}

/** @param {Uint8Array} bytes @param {number} at @param {number} length */
export function text(bytes, at, length) {
  return String.fromCharCode(...bytes.subarray(at, at + length));
}

/**
 * The parts of a file that are kept; neighbours are joined.
 * @param {Uint8Array<ArrayBuffer>} bytes
 */
export function keeper(bytes) {
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

/**
 * @param {DataView} view
 * @param {number} start  of the TIFF header
 * @param {number} end
 * @returns {number} 1..8; 1 also where there is none, or EXIF is damaged
 */
export function exifOrientation(view, start, end) {
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
