// @ts-check
/** The same ROI in every picture, side by side: a part that moved jumps out at once. To look at; what is judged is cut exactly. */
import { h } from "../dom.js";
import { cropSize } from "../pixels/roi.js";

/** @typedef {import("../pictures.js").PictureSet} PictureSet */
/** @typedef {import("../keep.js").KeptPicture} KeptPicture */
/** @typedef {import("../pixels/roi.js").Roi} Roi */

const SIDE = 132;

/**
 * @param {PictureSet} set
 * @param {object} options
 * @param {(picture: KeptPicture) => void} options.onChoose
 * @param {(picture: KeptPicture) => string} options.titleOf
 * @param {(picture: KeptPicture) => string | null} options.problemOf
 * @param {(picture: KeptPicture) => Promise<unknown>} options.look where the part of a picture is, which `roiIn` knows then
 * @param {(roi: Roi, picture: KeptPicture) => Roi} options.roiIn the ROI where the part is
 */
export function cropStrip(set, { onChoose, titleOf, problemOf, look: locate, roiIn }) {
  const node = h("div.strip", { role: "list" });
  /** @type {Map<string, {kept: KeptPicture, canvas: HTMLCanvasElement, button: any, seen: boolean, small: ImageBitmap | null}>} */
  const cells = new Map();
  /** @type {Roi | null} */
  let roi = null;
  let asked = 0;
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        const cell = cells.get(/** @type {HTMLElement} */ (entry.target).dataset.id ?? "");
        if (!cell) continue;
        cell.seen = entry.isIntersecting;
        if (cell.seen) void look(cell);
      }
    },
    { rootMargin: "300px" },
  );

  /** @param {any} cell */
  async function look(cell) {
    cell.small ??= await set.smallOf(cell.kept);
    draw(cell);
    await locate(cell.kept);
    draw(cell);
  }

  /** @param {any} cell */
  function draw({ canvas, small, kept, seen }) {
    if (small && seen && roi) drawCrop(canvas, small, kept, roiIn(roi, kept));
  }

  return {
    node,
    /** Show the pictures that there are now. */
    update() {
      for (const [id, cell] of cells) {
        if (set.list.includes(cell.kept)) continue;
        watcher.unobserve(cell.button);
        cell.button.parentElement?.remove();
        cells.delete(id);
      }
      for (const kept of set.list) {
        if (cells.has(kept.id)) continue;
        const canvas = /** @type {HTMLCanvasElement} */ (document.createElement("canvas"));
        const button = h("button.strip-cell", { "data-id": kept.id, onclick: () => onChoose(kept) }, canvas, h("span.strip-name", {}, kept.name));
        cells.set(kept.id, { kept, canvas, button, seen: false, small: null });
        node.append(h("div", { role: "listitem" }, button));
        watcher.observe(button);
      }
      this.mark();
    },
    /** Titles and problems, which change with the ROI. */
    mark() {
      for (const { kept, button } of cells.values()) {
        const problem = problemOf(kept);
        button.classList.toggle("problem", problem !== null);
        button.title = problem ?? titleOf(kept);
      }
    },
    /** @param {KeptPicture} chosen */
    choose(chosen) {
      for (const { kept, button } of cells.values()) button.setAttribute("aria-pressed", String(kept === chosen));
    },
    /** @param {Roi} next */
    show(next) {
      roi = next;
      if (asked) return;
      asked = requestAnimationFrame(() => {
        asked = 0;
        for (const cell of cells.values()) if (cell.seen) void look(cell);
      });
    },
    close() {
      watcher.disconnect();
      cancelAnimationFrame(asked);
    },
  };
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {ImageBitmap} small the whole picture
 * @param {{width: number, height: number}} picture its true size
 * @param {Roi} roi
 */
function drawCrop(canvas, small, picture, roi) {
  const crop = cropSize(roi);
  const scale = (SIDE * devicePixelRatio) / Math.max(crop.width, crop.height);
  canvas.width = Math.max(1, Math.round(crop.width * scale));
  canvas.height = Math.max(1, Math.round(crop.height * scale));
  const context = canvas.getContext("2d");
  if (!context) return;
  context.imageSmoothingQuality = "high";
  context.translate(canvas.width / 2, canvas.height / 2);
  if (roi.kind !== "rect") {
    context.beginPath();
    context.arc(0, 0, roi.r * scale, 0, 2 * Math.PI);
    if (roi.kind === "annulus") context.arc(0, 0, roi.r_inner * scale, 0, 2 * Math.PI, true);
    context.clip("evenodd");
  }
  context.scale(scale, scale);
  context.rotate((-roi.angle_deg * Math.PI) / 180);
  context.drawImage(small, -roi.cx, -roi.cy, picture.width, picture.height);
}
