// @ts-check
/** Addresses of pictures in the memory of this browser. */

const LOADED_WITHIN_MS = 10_000;

/**
 * Give an address back, not before an element that is still loading its picture has done so.
 * @param {Promise<string | null>} address
 */
export function giveBack(address) {
  address.then(
    (url) => url && setTimeout(() => URL.revokeObjectURL(url), LOADED_WITHIN_MS),
    () => undefined, // there is none
  );
}
