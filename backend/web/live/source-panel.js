// @ts-check
/** Where the pictures come from: a camera, a watched folder, a folder that is dropped, or one that plays a camera. */
import { newId } from "../api.js";
import { field, fill, h, icon } from "../dom.js";
import { dropZone } from "../ingest.js";
import { Camera, listCameras, whyNoCamera } from "../sources/camera.js";
import { DroppedFolder } from "../sources/dropped.js";
import { keepFolder, keptFolder } from "../sources/judged.js";
import { RecordedCamera } from "../sources/recorded.js";
import { WatchedFolder, whyNoFolder } from "../sources/watched.js";
import { messageOf, t } from "../texts.js";
import "../texts-later.js";

/** @typedef {import("../sources/source.js").Source} Source */
/** @typedef {import("../ingest.js").Found} Found */
/** @typedef {"camera" | "watched" | "dropped" | "recorded"} Kind */

const KINDS = /** @type {Kind[]} */ (["camera", "watched", "dropped", "recorded"]);
const KIND = "live source";
const CAMERA = "live camera";
const PER_S = { usual: 2, most: 30 };

export class SourcePanel {
  /**
   * @param {import("../main.js").App} app
   * @param {string} recipe
   * @param {{onSource: (source: Source) => void, sizeOf: () => {width: number, height: number} | null}} how sizeOf: of the pictures in which the ROIs were drawn
   */
  constructor(app, recipe, { onSource, sizeOf }) {
    this.app = app;
    this.recipe = recipe;
    this.onSource = onSource;
    this.sizeOf = sizeOf;
    this.kinds = h("div.row.middle", { role: "group", "aria-label": t("live.source") }, KINDS.map((kind) =>
      h("button.chip", { "data-kind": kind, onclick: () => void this.choose(kind) }, t(`live.source.${kind}`))));
    this.options = h("div.live-options");
    this.node = h("section.panel", { "aria-labelledby": "live-source" }, h("h2", { id: "live-source" }, t("live.source")), this.kinds, this.options);
    this.asked = 0;
    const kept = /** @type {Kind} */ (sessionStorage.getItem(KIND));
    void this.choose(KINDS.includes(kept) ? kept : "camera");
  }

  /** @param {Kind} kind */
  async choose(kind) {
    const number = ++this.asked;
    sessionStorage.setItem(KIND, kind);
    for (const button of this.kinds.children) button.setAttribute("aria-pressed", String(button.dataset.kind === kind));
    const options = { camera: () => this.forCamera(), watched: () => this.forWatched(), dropped: () => this.forDropped(), recorded: () => this.forRecorded() };
    const content = await options[kind]();
    if (number === this.asked) fill(this.options, content);
  }

  async forCamera() {
    const why = whyNoCamera();
    if (why) return [h("p.notice", {}, why), ...this.forDropped()];
    const cameras = await listCameras();
    const device = h("select", { id: "live-camera" }, h("option", { value: "" }, t("live.camera.any")), cameras.map(({ id, name }) => h("option", { value: id }, name)));
    const kept = sessionStorage.getItem(CAMERA) ?? "";
    if (cameras.some(({ id }) => id === kept)) device.value = kept;
    const start = h("button.primary", {}, icon("play"), t("live.start"));
    start.addEventListener("click", () => void this.start(start, async () => {
      const camera = await Camera.open(device.value, this.sizeOf());
      sessionStorage.setItem(CAMERA, camera.deviceId);
      return camera;
    }));
    return [
      h("div.row", {}, field(t("live.source.camera"), device), start),
      h("p.hint", {}, t("live.camera.hint")),
    ];
  }

  async forWatched() {
    const why = whyNoFolder();
    if (why) return [h("p.notice", {}, why), ...this.forDropped()];
    const kept = await keptFolder(this.recipe);
    const choose = h("button", { class: kept ? "" : "primary" }, icon("folder"), t("live.folder.choose"));
    choose.addEventListener("click", () => void this.start(choose, async () => {
      const handle = await chosenFolder();
      return handle && this.watch(handle);
    }));
    const again = kept && h("button.primary", {}, icon("play"), t("live.folder.again", { name: kept.handle.name }));
    again?.addEventListener("click", () => void this.start(again, async () => {
      const may = await /** @type {any} */ (kept?.handle).requestPermission({ mode: "read" });
      if (may !== "granted") throw new Error(t("live.folder.not_allowed", { name: kept?.handle.name ?? "" }));
      return this.watch(/** @type {any} */ (kept).handle);
    }));
    return [h("div.row", {}, again, choose), h("p.hint", {}, t("live.folder.hint"))];
  }

  /** @param {FileSystemDirectoryHandle} handle */
  async watch(handle) {
    const { id } = await keepFolder(this.recipe, handle, newId());
    return new WatchedFolder(handle, id);
  }

  forDropped() {
    return [this.zone(t("live.dropped.drop"), (found) => new DroppedFolder(found, nameOf(found)))];
  }

  forRecorded() {
    const per_s = h("input", { id: "live-per-s", type: "number", min: 0.1, max: PER_S.most, step: "any", value: PER_S.usual });
    const again = h("input", { id: "live-again", type: "checkbox", checked: true });
    return [
      h("div.row", {}, field(t("live.recorded.per_s"), per_s), h("label.inline", { for: "live-again" }, again, t("live.recorded.again"))),
      this.zone(t("live.recorded.drop"), (found) => {
        const speed = Math.min(PER_S.most, Math.max(0.1, Number(per_s.value) || PER_S.usual));
        return new RecordedCamera(found, { name: nameOf(found), per_s: speed, again: again.checked });
      }),
    ];
  }

  /** @param {string} text @param {(found: Found[]) => Source} make */
  zone(text, make) {
    return dropZone((found) => {
      if (found.length) this.onSource(make(found));
      else this.app.say("warning", t("drop.nothing"));
    }, { text, compact: true });
  }

  /** @param {any} button @param {() => Promise<Source | null>} make */
  async start(button, make) {
    button.disabled = true;
    try {
      const source = await make();
      if (source) this.onSource(source);
    } catch (problem) {
      this.app.say("error", messageOf(problem));
    } finally {
      button.disabled = false;
    }
  }
}

/** @param {Found[]} found */
function nameOf(found) {
  return found[0].folder.split("/")[0] || t("live.files", { n: found.length });
}

/** @returns {Promise<FileSystemDirectoryHandle | null>} null: the person chose none */
async function chosenFolder() {
  try {
    return await /** @type {any} */ (window).showDirectoryPicker({ id: "live", mode: "read" });
  } catch (problem) {
    if (problem instanceof DOMException && problem.name === "AbortError") return null;
    throw problem;
  }
}
