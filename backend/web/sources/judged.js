// @ts-check
/** What was judged of watched folders, over reloads; and the folders, so that they can be watched again. */
import { Database } from "../database.js";

const FOLDERS = "folders";
const JUDGED = "judged";

/**
 * @typedef {{recipe: string, handle: FileSystemDirectoryHandle, id: string}} KeptFolder the folder that a recipe watched last
 * @typedef {{folder: string, path: string, stamp: string}} JudgedFile stamp: its size and the time of its last change
 */

const database = new Database("roi-anomaly-console-live", 1, (made) => {
  made.createObjectStore(FOLDERS, { keyPath: "recipe" });
  made.createObjectStore(JUDGED, { keyPath: ["folder", "path"] });
});

/** @param {string} recipe @returns {Promise<KeptFolder | null>} */
export async function keptFolder(recipe) {
  return (await database.transact([FOLDERS], "readonly", (store) => store.get(recipe))) ?? null;
}

/**
 * Keep a folder as the one that a recipe watches. The same folder, chosen again, keeps what was judged of it.
 * @param {string} recipe
 * @param {FileSystemDirectoryHandle} handle
 * @param {string} newId for a folder that is not known
 * @returns {Promise<KeptFolder>}
 */
export async function keepFolder(recipe, handle, newId) {
  const known = /** @type {KeptFolder[]} */ (await database.transact([FOLDERS], "readonly", (store) => store.getAll()));
  let id = newId;
  for (const folder of known) if (folder.recipe === recipe && (await folder.handle.isSameEntry(handle))) id = folder.id;
  const kept = { recipe, handle, id };
  await database.transact([FOLDERS], "readwrite", (store) => store.put(kept));
  return kept;
}

/** @param {string} folder @returns {IDBKeyRange} its files */
const within = (folder) => IDBKeyRange.bound([folder], [folder, []]);

/** @param {string} folder id @returns {Promise<Map<string, string>>} stamps by path */
export async function judgedFiles(folder) {
  const files = /** @type {JudgedFile[]} */ (await database.transact([JUDGED], "readonly", (store) => store.getAll(within(folder))));
  return new Map(files.map(({ path, stamp }) => [path, stamp]));
}

/** @param {string} folder id @param {Iterable<[string, string]>} files path and stamp */
export async function keepJudged(folder, files) {
  await database.transact([JUDGED], "readwrite", (store) => {
    for (const [path, stamp] of files) store.put({ folder, path, stamp });
  });
}

/** @param {string} folder id @param {string[]} paths of files that are gone */
export async function forgetJudged(folder, paths) {
  await database.transact([JUDGED], "readwrite", (store) => {
    for (const path of paths) store.delete([folder, path]);
  });
}
