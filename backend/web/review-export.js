// @ts-check
/** Parts with their verdicts in the layout of MVTec AD, which `roi-anomaly evaluate` reads: a folder of this computer, or an archive. */
import { call, fetchBlob, idsOf } from "./api.js";

/** @typedef {import("./judged.js").Judged} Judged */
/** @typedef {{add: (path: string, content: Blob) => Promise<void>}} Target */

const NOT_IN_NAMES = /[^\p{L}\p{N}._-]+/gu;
const SUFFIXES = /** @type {Record<string, string>} */ ({ "image/png": ".png", "image/jpeg": ".jpg", "image/bmp": ".bmp", "image/webp": ".webp" });

/**
 * What a part is: what a person says, else what was judged.
 * @param {Judged} part
 * @returns {"good" | "bad" | null}
 */
function truthOf({ truth, decision }) {
  return truth ?? (decision === "ok" ? "good" : decision === "ng" ? "bad" : null);
}

/**
 * Of which kind a part is in the test: bad parts that passed stand by themselves.
 * @param {Judged} part
 * @returns {"good" | "rejected" | "escaped" | null}
 */
export function kindOf(part) {
  const truth = truthOf(part);
  return truth === "bad" ? (part.decision === "ok" ? "escaped" : "rejected") : truth;
}

/** A new folder in one of this computer. */
export class Folder {
  /** @param {FileSystemDirectoryHandle} parent @param {string} name */
  constructor(parent, name) {
    this.parent = parent;
    this.name = name.replace(NOT_IN_NAMES, "_");
  }

  /** @param {string} path @param {Blob} content */
  async add(path, content) {
    const folders = [this.name, ...path.split("/")];
    const name = /** @type {string} */ (folders.pop());
    let folder = this.parent;
    for (const one of folders) folder = await folder.getDirectoryHandle(one, { create: true });
    const stream = await (await folder.getFileHandle(name, { create: true })).createWritable();
    await stream.write(content);
    await stream.close();
  }
}

/**
 * @param {import("./api.js").RoiKey} key
 * @param {Judged[]} parts
 * @param {Target} target
 * @param {(done: number, total: number) => void} onProgress
 * @returns {Promise<{n_train: number, n_test: number}>}
 * @throws {RangeError} an archive would be larger than programs read
 */
export async function exported(key, parts, target, onProgress) {
  const { classes } = await call("datasets/list", { query: idsOf(key) });
  /** @type {string[]} */
  const train = classes.ok.files;
  const test = parts.filter((part) => kindOf(part) !== null);
  const total = train.length + test.length;
  for (const [at, filename] of train.entries()) {
    onProgress(at + 1, total);
    await target.add(`train/good/${filename}`, await fetchBlob("datasets/file", { query: { ...idsOf(key), label: "ok", filename } }));
  }
  const rows = [["file", "verdict", "marked", "score", "threshold", "at_utc", "name"]];
  for (const [at, part] of test.entries()) {
    onProgress(train.length + at + 1, total);
    const path = `test/${kindOf(part)}/${String(at + 1).padStart(5, "0")}-${stemOf(part.name)}${suffixOf(part)}`;
    await target.add(path, part.crop);
    rows.push([path, part.decision ?? "", part.truth ?? "", String(part.score), String(part.threshold ?? ""), part.at, cell(part.name)]);
  }
  await target.add("verdicts.csv", new Blob([rows.map((row) => `${row.join(",")}\r\n`).join("")], { type: "text/csv" }));
  return { n_train: train.length, n_test: test.length };
}

/** @param {string} name */
function stemOf(name) {
  return name.replace(/\.[^.]*$/, "").replace(NOT_IN_NAMES, "_").slice(0, 60) || "part";
}

/** @param {Judged} part */
function suffixOf({ crop, name }) {
  return SUFFIXES[crop.type] ?? /\.(png|jpe?g|bmp|webp)$/i.exec(name)?.[0].toLowerCase() ?? ".png";
}

/** A name as a cell of a CSV: none becomes a formula. @param {string} text */
function cell(text) {
  const safe = /^[=+\-@\t]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
