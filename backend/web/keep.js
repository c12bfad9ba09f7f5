// @ts-check
/** What this browser keeps: pictures that are not, or not only, in the service. A reload loses none of them. */

const NAME = "roi-anomaly-console";
const VERSION = 1;
const PICTURES = "pictures";

/**
 * A picture of a camera, as it was dropped.
 * @typedef {object} KeptPicture
 * @property {string} id
 * @property {string} roi see `roiText`
 * @property {string} name of the file
 * @property {string} folder in which it lay; empty where that is not known
 * @property {number} order of arrival
 * @property {Blob} blob the file
 * @property {number} width pixels
 * @property {number} height pixels
 * @property {"ok" | "ng" | null} label
 * @property {{label: "ok" | "ng", filename: string, cut: string} | null} stored where its crop is in the service, and how it was cut
 * @property {string | null} duplicateOf name of a picture with the same pixels
 */

/** @type {Promise<IDBDatabase> | null} */
let opened = null;

/** @returns {Promise<IDBDatabase>} */
function database() {
  opened ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, VERSION);
    request.onupgradeneeded = () => {
      const store = request.result.createObjectStore(PICTURES, { keyPath: "id" });
      store.createIndex("roi", "roi");
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
 * @param {IDBTransactionMode} mode
 * @param {(store: IDBObjectStore) => IDBRequest<T> | void} work
 * @returns {Promise<T>} once all of it is on the disk
 */
async function transact(mode, work) {
  const transaction = (await database()).transaction(PICTURES, mode);
  return new Promise((resolve, reject) => {
    const request = work(transaction.objectStore(PICTURES));
    transaction.oncomplete = () => resolve(/** @type {T} */ (request?.result));
    transaction.onerror = transaction.onabort = () => reject(transaction.error);
  });
}

/** @param {string} roi @returns {Promise<KeptPicture[]>} in the order in which they came */
export async function keptPictures(roi) {
  const found = await transact("readonly", (store) => store.index("roi").getAll(roi));
  return found.sort((a, b) => a.order - b.order);
}

/** @param {KeptPicture[]} pictures */
export async function keepPictures(pictures) {
  await transact("readwrite", (store) => {
    for (const picture of pictures) store.put(picture);
  });
}

/** @param {string[]} ids */
export async function forgetPictures(ids) {
  await transact("readwrite", (store) => {
    for (const id of ids) store.delete(id);
  });
}
