// @ts-check
/** Parts with their verdicts as a folder in the layout of MVTec AD, which `roi-anomaly evaluate` reads, in one archive. */
import { call, fetchBlob, idsOf } from "./api.js";
import { Zip } from "./zip.js";

/** @typedef {import("./judged.js").Judged} Judged */

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

/**
 * @param {import("./api.js").RoiKey} key
 * @param {Judged[]} parts
 * @param {(done: number, total: number) => void} onProgress
 * @returns {Promise<{blob: Blob, n_train: number, n_test: number}>}
 * @throws {RangeError} it would be larger than programs read
 */
export async function exported(key, parts, onProgress) {
  const zip = new Zip();
  const { classes } = await call("datasets/list", { query: idsOf(key) });
  /** @type {string[]} */
  const train = classes.ok.files;
  const test = parts.filter((part) => kindOf(part) !== null);
  const total = train.length + test.length;
  for (const [at, filename] of train.entries()) {
    onProgress(at + 1, total);
    await zip.add(`train/good/${filename}`, await fetchBlob("datasets/file", { query: { ...idsOf(key), label: "ok", filename } }));
  }
  const rows = [["file", "verdict", "marked", "score", "threshold", "at_utc", "name"]];
  for (const [at, part] of test.entries()) {
    onProgress(train.length + at + 1, total);
    const path = `test/${kindOf(part)}/${String(at + 1).padStart(5, "0")}-${stemOf(part.name)}${suffixOf(part)}`;
    await zip.add(path, part.crop);
    rows.push([path, part.decision ?? "", part.truth ?? "", String(part.score), String(part.threshold ?? ""), part.at, cell(part.name)]);
  }
  await zip.add("verdicts.csv", new Blob([rows.map((row) => `${row.join(",")}\r\n`).join("")], { type: "text/csv" }));
  return { blob: zip.blob(), n_train: train.length, n_test: test.length };
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
