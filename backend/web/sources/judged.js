// @ts-check
/** What was judged of watched folders, over reloads; and the folders, so that they can be watched again. */

const NAME = "roi-anomaly-console-live";
const VERSION = 1;
const FOLDERS = "folders";
const JUDGED = "judged";

/**
 * @typedef {{recipe: string, handle: FileSystemDirectoryHandle, id: string}} KeptFolder the folder that a recipe watched last
 * @typedef {{folder: string, path: string, stamp: string}} JudgedFile stamp: its size and the time of its last change
 */

/** @type {Promise<IDBDatabase> | null} */
let opened = null;

/** @returns {Promise<IDBDatabase>} */
function database() {
  opened ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, VERSION);
    request.onupgradeneeded = () => {
      request.result.createObjectStore(FOLDERS, { keyPath: "recipe" });
      request.result.createObjectStore(JUDGED, { keyPath: ["folder", "path"] });
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => {
      opened = null;
      reject(request.error);
    };
  });
  return opened;
}

/**
 * @template T
 * @param {typeof FOLDERS | typeof JUDGED} name
 * @param {IDBTransactionMode} mode
 * @param {(store: IDBObjectStore) => IDBRequest<T> | void} work
 * @returns {Promise<T>} once all of it is on the disk
 */
async function transact(name, mode, work) {
  const transaction = (await database()).transaction(name, mode);
  return new Promise((resolve, reject) => {
    const request = work(transaction.objectStore(name));
    transaction.oncomplete = () => resolve(/** @type {T} */ (request?.result));
    transaction.onerror = transaction.onabort = () => reject(transaction.error);
  });
}

/** @param {string} recipe @returns {Promise<KeptFolder | null>} */
export async function keptFolder(recipe) {
  return (await transact(FOLDERS, "readonly", (store) => store.get(recipe))) ?? null;
}

/**
 * Keep a folder as the one that a recipe watches. The same folder, chosen again, keeps what was judged of it.
 * @param {string} recipe
 * @param {FileSystemDirectoryHandle} handle
 * @param {string} newId for a folder that is not known
 * @returns {Promise<KeptFolder>}
 */
export async function keepFolder(recipe, handle, newId) {
  const known = /** @type {KeptFolder[]} */ (await transact(FOLDERS, "readonly", (store) => store.getAll()));
  let id = newId;
  for (const folder of known) if (folder.recipe === recipe && (await folder.handle.isSameEntry(handle))) id = folder.id;
  const kept = { recipe, handle, id };
  await transact(FOLDERS, "readwrite", (store) => store.put(kept));
  return kept;
}

/** @param {string} folder @returns {IDBKeyRange} its files */
const within = (folder) => IDBKeyRange.bound([folder], [folder, []]);

/** @param {string} folder id @returns {Promise<Map<string, string>>} stamps by path */
export async function judgedFiles(folder) {
  const files = /** @type {JudgedFile[]} */ (await transact(JUDGED, "readonly", (store) => store.getAll(within(folder))));
  return new Map(files.map(({ path, stamp }) => [path, stamp]));
}

/** @param {string} folder id @param {Iterable<[string, string]>} files path and stamp */
export async function keepJudged(folder, files) {
  await transact(JUDGED, "readwrite", (store) => {
    for (const [path, stamp] of files) store.put({ folder, path, stamp });
  });
}

/** @param {string} folder id @param {string[]} paths of files that are gone */
export async function forgetJudged(folder, paths) {
  await transact(JUDGED, "readwrite", (store) => {
    for (const path of paths) store.delete([folder, path]);
  });
}
