// @ts-check
/** Folders and files that are dropped or chosen, as a flat list of pictures with the folder in which each lay. */
import { h, icon } from "./dom.js";
import { t } from "./texts.js";

const PICTURE = /\.(png|jpe?g|bmp|webp|tiff?)$/i;

/** @typedef {{file: File, folder: string}} Found */

/**
 * What was dropped, folders with all that is in them.
 * @param {DataTransfer} transfer only valid while the event is handled, so its entries are taken before anything is awaited
 * @returns {Promise<Found[]>}
 */
async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter((entry) => entry !== null);
  const found = [];
  for (const entry of entries) if (entry) found.push(...(await below(entry, "")));
  return sorted(found);
}

/** @param {FileList} list of an input @returns {Found[]} */
function filesIn(list) {
  const found = [...list].map((file) => ({ file, folder: file.webkitRelativePath.split("/").slice(0, -1).join("/") }));
  return sorted(found);
}

/** @param {string} name of a file */
export function isPicture(name) {
  return PICTURE.test(name);
}

/** @param {Found[]} found */
function sorted(found) {
  return found
    .filter(({ file }) => isPicture(file.name) || file.type.startsWith("image/"))
    .sort((a, b) => a.folder.localeCompare(b.folder) || a.file.name.localeCompare(b.file.name, [], { numeric: true }));
}

/**
 * @param {FileSystemEntry} entry
 * @param {string} folder
 * @returns {Promise<Found[]>}
 */
async function below(entry, folder) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => /** @type {FileSystemFileEntry} */ (entry).file(resolve, reject));
    return [{ file, folder }];
  }
  const reader = /** @type {FileSystemDirectoryEntry} */ (entry).createReader();
  const path = folder ? `${folder}/${entry.name}` : entry.name;
  const found = [];
  for (;;) {
    /** @type {FileSystemEntry[]} a hundred at a time */
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return found;
    for (const inner of some) found.push(...(await below(inner, path)));
  }
}

/**
 * A place to drop on, with buttons for those who have no mouse.
 * @param {(found: Found[]) => void} onFound
 * @param {{text: string, compact?: boolean}} options
 */
export function dropZone(onFound, { text, compact = false }) {
  const files = h("input", { type: "file", multiple: true, accept: "image/*", class: "sr", tabindex: "-1", "aria-hidden": "true" });
  const folder = h("input", { type: "file", webkitdirectory: true, class: "sr", tabindex: "-1", "aria-hidden": "true" });
  for (const input of [files, folder]) {
    input.addEventListener("change", () => {
      onFound(filesIn(input.files));
      input.value = "";
    });
  }
  const zone = h(
    `div.drop${compact ? ".compact" : ""}`,
    { role: "group", "aria-label": text, ondragover, ondragleave, ondrop },
    h("p", {}, text),
    h(
      "div.row.middle",
      {},
      h("button", { onclick: () => folder.click() }, icon("folder"), t("drop.folder")),
      h("button", { onclick: () => files.click() }, icon("file"), t("drop.files")),
    ),
    files,
    folder,
  );

  /** @param {DragEvent} event */
  function ondragover(event) {
    event.preventDefault();
    zone.classList.add("over");
  }
  function ondragleave() {
    zone.classList.remove("over");
  }
  /** @param {DragEvent} event */
  async function ondrop(event) {
    event.preventDefault();
    zone.classList.remove("over");
    if (event.dataTransfer) onFound(await filesOf(event.dataTransfer));
  }
  return zone;
}
