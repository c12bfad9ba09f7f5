// @ts-check
/**
 * A camera of this computer. A frame becomes a PNG of the pixels that the browser gives, so that it is opened, cut and kept
 * like any file. Browsers get frames as YUV and convert them: they are not the sensor's pixels (docs/console.md).
 */
import { clock, messageOf, t } from "../texts.js";
import "../texts-later.js";
import { Bell } from "./source.js";

/** @typedef {import("./source.js").Frame} Frame */
/** @typedef {import("./source.js").Source} Source */

const USUAL_SIZE = { width: 1920, height: 1080 };
/** Without a frame for so long, the camera gives none. */
const SILENT_MS = 2000;
/** Frames are told to pages that are seen; a hidden page looks for them itself. */
const LOOK_EVERY_MS = 500;

/** Why this browser gives no camera here. @returns {string | null} */
export function whyNoCamera() {
  if (!isSecureContext) return t("live.camera.insecure");
  return "mediaDevices" in navigator ? null : t("live.camera.unsupported");
}

/** The cameras that there are; without names until one was allowed. @returns {Promise<{id: string, name: string}[]>} */
export async function listCameras() {
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices
    .filter(({ kind, deviceId }) => kind === "videoinput" && deviceId)
    .map(({ deviceId, label }, at) => ({ id: deviceId, name: label || t("live.camera.number", { n: at + 1 }) }));
}

/** @implements {Source} */
export class Camera {
  /**
   * @param {string} id of the device; empty: any
   * @param {{width: number, height: number} | null} size that pictures shall have, if the camera can
   * @returns {Promise<Camera>}
   * @throws what is wrong, in a sentence
   */
  static async open(id, size) {
    const { width, height } = size ?? USUAL_SIZE;
    /** @type {any} */
    const video = { width: { ideal: width }, height: { ideal: height }, resizeMode: "none" }; // no pixel is scaled
    if (id) video.deviceId = { exact: id };
    /** @type {MediaStream} */
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video, audio: false });
    } catch (problem) {
      throw new Error(refusal(problem));
    }
    const camera = new Camera(stream);
    try {
      await camera.video.play();
    } catch (problem) {
      camera.close();
      throw problem;
    }
    return camera;
  }

  /** @param {MediaStream} stream */
  constructor(stream) {
    this.kind = /** @type {const} */ ("camera");
    this.backlog = 0;
    this.dropped = 0;
    this.track = stream.getVideoTracks()[0];
    this.name = this.track.label || t("live.source.camera");
    this.deviceId = this.track.getSettings().deviceId ?? "";
    this.video = document.createElement("video");
    Object.assign(this.video, { muted: true, playsInline: true, srcObject: stream });
    this.video.setAttribute("aria-hidden", "true"); // what is judged stands beside it
    this.canvas = new OffscreenCanvas(1, 1);
    this.bell = new Bell();
    /** Frames that the browser has shown, and the last one of them that was given. */
    this.shown = 0;
    this.given = 0;
    this.frame_at = performance.now();
    this.seen_s = -1;
    this.closed = false;
    this.track.addEventListener("ended", () => this.bell.ring());
    this.look();
    this.timer = setInterval(() => this.lookSlowly(), LOOK_EVERY_MS);
  }

  /** @returns {string | null} */
  get problem() {
    if (this.track.readyState === "ended") return t("live.camera.ended", { name: this.name });
    return performance.now() - this.frame_at > SILENT_MS ? t("live.camera.silent", { name: this.name }) : null;
  }

  /** Every frame that the page shows is told. */
  look() {
    this.video.requestVideoFrameCallback?.((_now, { presentedFrames, mediaTime }) => {
      if (this.closed) return;
      this.arrived(Math.max(this.shown + 1, presentedFrames), mediaTime);
      this.look();
    });
  }

  /** A page that is hidden is told nothing. */
  lookSlowly() {
    if (document.hidden || !this.video.requestVideoFrameCallback) {
      if (this.video.currentTime > this.seen_s) this.arrived(this.shown + 1, this.video.currentTime);
    }
  }

  /** @param {number} number of the frame @param {number} at_s its time in the stream */
  arrived(number, at_s) {
    this.shown = number;
    this.seen_s = at_s;
    this.frame_at = performance.now();
    this.bell.ring();
  }

  /** @param {AbortSignal} signal @returns {Promise<Frame | null>} */
  async next(signal) {
    while (this.shown <= this.given) {
      if (this.track.readyState === "ended") return null;
      await this.bell.wait(signal);
    }
    this.dropped += this.given ? this.shown - this.given - 1 : 0;
    this.given = this.shown;
    return this.frame();
  }

  /** What the camera shows now. @returns {Promise<Frame>} */
  async frame() {
    const now = new Date();
    const [day, time] = now.toISOString().slice(0, -1).replaceAll(/[-:.]/g, "").split("T");
    return { name: `camera-${day}-${time}.png`, label: clock(now), blob: await this.png() };
  }

  /** @returns {Promise<Blob>} */
  async png() {
    const { videoWidth: width, videoHeight: height } = this.video;
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    // In memory, where the conversion is the same at every time and on every graphics card.
    const context = this.canvas.getContext("2d", { alpha: false, willReadFrequently: true });
    if (!context) throw new Error(t("live.camera.no_canvas"));
    context.imageSmoothingEnabled = false;
    context.drawImage(this.video, 0, 0);
    return this.canvas.convertToBlob({ type: "image/png" });
  }

  /** What was passed over while nothing was judged is not counted. */
  hold() {
    this.given = this.shown;
  }

  async done() {}

  close() {
    this.closed = true;
    clearInterval(this.timer);
    this.track.stop();
    this.video.srcObject = null;
  }
}

/** @param {unknown} problem of getUserMedia */
function refusal(problem) {
  const name = problem instanceof DOMException ? problem.name : "";
  if (name === "NotAllowedError" || name === "SecurityError") return t("live.camera.not_allowed");
  if (name === "NotFoundError") return t("live.camera.not_found");
  if (name === "OverconstrainedError") return t("live.camera.gone");
  if (name === "NotReadableError" || name === "AbortError") return t("live.camera.busy");
  return messageOf(problem);
}
