// @ts-check
/** A ZIP archive of files as they are: pictures are compressed already. */

const LOCAL = 0x04034b50;
const CENTRAL = 0x02014b50;
const END = 0x06054b50;
const VERSION = 20;
const UTF8 = 0x0800;
const MOST_FILES = 65_535;
const MOST_BYTES = 4 * 1024 ** 3 - 1;

/** @type {Uint32Array | null} */
let table = null;

/** @param {Uint8Array} bytes @returns {number} the checksum that ZIP and PNG have */
function crc32(bytes) {
  table ??= Uint32Array.from({ length: 256 }, (_, n) => {
    let value = n;
    for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
    return value;
  });
  let sum = 0xffffffff;
  for (let k = 0; k < bytes.length; k++) sum = table[(sum ^ bytes[k]) & 255] ^ (sum >>> 8);
  return (sum ^ 0xffffffff) >>> 0;
}

/**
 * @param {number} signature
 * @param {[number, number][]} fields their bytes, 2 or 4, and values
 */
function record(signature, fields) {
  const view = new DataView(new ArrayBuffer(4 + fields.reduce((sum, [bytes]) => sum + bytes, 0)));
  view.setUint32(0, signature, true);
  let at = 4;
  for (const [bytes, value] of fields) {
    if (bytes === 2) view.setUint16(at, value, true);
    else view.setUint32(at, value, true);
    at += bytes;
  }
  return view;
}

export class Zip {
  constructor() {
    /** @type {BlobPart[]} */
    this.parts = [];
    /** @type {BlobPart[]} */
    this.directory = [];
    this.bytes = 0;
    this.directoryBytes = 0;
    this.n = 0;
    const now = new Date();
    this.time = (now.getHours() << 11) | (now.getMinutes() << 5) | (now.getSeconds() >> 1);
    this.date = ((now.getFullYear() - 1980) << 9) | ((now.getMonth() + 1) << 5) | now.getDate();
  }

  /**
   * @param {string} path with / between folders
   * @param {Blob} content
   * @throws {RangeError} it would be larger than programs read
   */
  async add(path, content) {
    const name = new TextEncoder().encode(path);
    const sum = crc32(new Uint8Array(await content.arrayBuffer()));
    /** @type {[number, number][]} */
    const facts = [[2, UTF8], [2, 0], [2, this.time], [2, this.date], [4, sum], [4, content.size], [4, content.size], [2, name.length], [2, 0]];
    const local = record(LOCAL, [[2, VERSION], ...facts]);
    const central = record(CENTRAL, [[2, VERSION], [2, VERSION], ...facts, [2, 0], [2, 0], [2, 0], [4, 0], [4, this.bytes]]);
    const after = this.bytes + local.byteLength + name.length + content.size;
    if (this.n === MOST_FILES || after + this.directoryBytes + central.byteLength + name.length > MOST_BYTES) throw new RangeError("the archive is full");
    this.parts.push(local, name, content);
    this.directory.push(central, name);
    this.bytes = after;
    this.directoryBytes += central.byteLength + name.length;
    this.n++;
  }

  /** @returns {Blob} */
  blob() {
    const end = record(END, [[2, 0], [2, 0], [2, this.n], [2, this.n], [4, this.directoryBytes], [4, this.bytes], [2, 0]]);
    return new Blob([...this.parts, ...this.directory, end], { type: "application/zip" });
  }
}
