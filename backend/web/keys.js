// @ts-check
/** What keys do. A key with Ctrl, Alt or Meta is the browser's. */

/** @typedef {Record<string, () => void>} Actions by `KeyboardEvent.key`; a letter in lower case, for both cases */

/** @param {Actions} actions @returns {(event: KeyboardEvent) => void} a listener */
export function keys(actions) {
  return (event) => {
    const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    action();
  };
}

/** Keys of a screen, wherever the focus is but in a field or a dialog. @param {Actions} actions @returns {() => void} ends it */
export function screenKeys(actions) {
  const act = keys(actions);
  const listener = (/** @type {KeyboardEvent} */ event) => {
    if (!(/** @type {HTMLElement} */ (event.target).matches("input, select, textarea, dialog *"))) act(event);
  };
  document.addEventListener("keydown", listener);
  return () => document.removeEventListener("keydown", listener);
}
