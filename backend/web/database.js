// @ts-check
/** A database of this browser: opened when it is needed, and what is written is on the disk once that is told. */

export class Database {
  /**
   * @param {string} name
   * @param {number} version
   * @param {(database: IDBDatabase) => void} create its stores; those of an older version are gone by then
   */
  constructor(name, version, create) {
    this.name = name;
    this.version = version;
    this.create = create;
    /** @type {Promise<IDBDatabase> | null} */
    this.opened = null;
  }

  /** @returns {Promise<IDBDatabase>} */
  open() {
    this.opened ??= new Promise((resolve, reject) => {
      const request = indexedDB.open(this.name, this.version);
      request.onupgradeneeded = () => {
        const { result } = request;
        for (const name of result.objectStoreNames) result.deleteObjectStore(name);
        this.create(result);
      };
      request.onsuccess = () => {
        request.result.onversionchange = () => request.result.close(); // a newer console in another tab must not wait for this one
        request.result.onclose = () => { this.opened = null; }; // its data were deleted: what comes next is kept anew
        resolve(request.result);
      };
      request.onerror = () => {
        this.opened = null;
        reject(request.error);
      };
    });
    return this.opened;
  }

  /**
   * @template T
   * @param {string[]} names of the stores that `work` gets
   * @param {IDBTransactionMode} mode
   * @param {(...stores: IDBObjectStore[]) => IDBRequest<T> | T} work
   * @returns {Promise<T>} what `work` asked for, once all of it is on the disk
   */
  async transact(names, mode, work) {
    const transaction = (await this.open()).transaction(names, mode);
    return new Promise((resolve, reject) => {
      const asked = work(...names.map((name) => transaction.objectStore(name)));
      transaction.oncomplete = () => resolve(asked instanceof IDBRequest ? asked.result : asked);
      transaction.onerror = transaction.onabort = () => reject(transaction.error);
    });
  }
}
