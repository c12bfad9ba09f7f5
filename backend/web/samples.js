// @ts-check
/** The samples of a ROI: pictures of this browser and images of the service as one list, and the way from here to there. */
import { ApiError, call, fetchBlob, formOf, idsOf, send } from "./api.js";
import { PictureSet, cutText } from "./pictures.js";
import { cropSize } from "./pixels/roi.js";
import { sentOf } from "./question.js";
import { messageOf } from "./texts.js";
import { giveBack } from "./thumbnails.js";

/** @typedef {import("./api.js").RoiKey} RoiKey */
/** @typedef {import("./keep.js").KeptPicture} KeptPicture */
/** @typedef {import("./layout.js").DrawnRoi} DrawnRoi */
/** @typedef {"ok" | "ng"} Label */
/**
 * @typedef {object} Sample
 * @property {string} id
 * @property {string} name for people
 * @property {string} folder
 * @property {Label | null} label
 * @property {KeptPicture | null} kept null: only in the service
 * @property {string | null} filename in the service
 * @property {string | null} problem why it could not be stored
 * @property {number | null} score by a memory bank of the others
 * @property {boolean} suspicious
 */

const AT_ONCE = 6;

export class Samples {
  /**
   * @param {RoiKey} key
   * @param {() => void} onChange
   */
  constructor(key, onChange) {
    this.key = key;
    this.onChange = onChange;
    this.set = new PictureSet(key);
    /** @type {DrawnRoi | null} */
    this.drawn = null;
    /** @type {Sample[]} */
    this.list = [];
    this.storing = false;
    /** @type {Error | null} why storing stopped */
    this.stopped = null;
    this.abort = new AbortController();
    /** @type {Map<string, Promise<string>>} */
    this.urls = new Map();
  }

  /** What the service and this browser have. @returns {Promise<any>} classes of `/datasets/list` */
  async read() {
    const [{ classes }] = await Promise.all([call("datasets/list", { query: idsOf(this.key) }), this.set.load()]);
    return classes;
  }

  /** @param {any} classes of `read` @param {DrawnRoi | null} drawn @param {boolean} fitted */
  async load(classes, drawn, fitted) {
    this.drawn = drawn;
    await this.reconcile(classes);
    if (fitted) await this.rank();
  }

  /** What another station deleted or moved is so here, too. @param {any} classes of `/datasets/list` */
  async reconcile(classes) {
    /** @type {Map<string, Label>} */
    const stored = new Map();
    for (const label of /** @type {Label[]} */ (["ok", "ng"])) for (const name of classes[label].files) stored.set(name, label);
    /** @type {Sample[]} */
    const list = [];
    for (const kept of this.set.list) {
      if (kept.stored) {
        const label = stored.get(kept.stored.filename);
        if (!label) await this.set.change(kept, { label: null, stored: null });
        else if (label !== kept.stored.label) await this.set.change(kept, { label, stored: { ...kept.stored, label } });
      }
      list.push(sampleOf(kept));
    }
    const here = new Set(list.map((sample) => sample.filename));
    for (const [filename, label] of stored) {
      if (here.has(filename)) continue;
      const name = classes[label].uploaded_as[filename] ?? filename;
      list.push({ id: filename, name, folder: "", label, kept: null, filename, problem: null, score: null, suspicious: false });
    }
    this.list = list;
  }

  /** Scores and suspicions of the last fit. */
  async rank() {
    const { images } = await call("bank", { query: idsOf(this.key) });
    const facts = new Map(images.map((/** @type {any} */ image) => [image.filename, image]));
    for (const sample of this.list) {
      const fact = sample.filename ? facts.get(sample.filename) : null;
      sample.score = fact?.score ?? null;
      sample.suspicious = (fact?.suspicious ?? false) && sample.label === "ok";
    }
  }

  /** Suspicious ones first, then those to decide, good ones from the most unusual on, bad ones. */
  sort() {
    const rank = (/** @type {Sample} */ sample) => (sample.suspicious ? 0 : sample.label === null ? 1 : sample.label === "ok" ? 2 : 3);
    this.list.sort((a, b) => rank(a) - rank(b) || (b.score ?? 0) - (a.score ?? 0));
  }

  /** @param {Sample} sample */
  isPending({ kept }) {
    return kept !== null && kept.label !== null && (kept.stored === null || kept.stored.label !== kept.label || kept.stored.cut !== this.cut);
  }

  get pending() {
    return this.list.filter((sample) => sample.problem === null && this.isPending(sample));
  }

  /** Good ones that a fit takes. */
  get fitting() {
    return new Set(this.list.filter(({ label, filename }) => label === "ok" && filename !== null).map(({ filename }) => filename)).size;
  }

  get cut() {
    return this.drawn?.roi ? cutText(this.drawn.roi, this.drawn.anchor) : "";
  }

  /** Pixels of the ROI; null: nothing here tells. */
  get size() {
    return this.drawn?.roi ? cropSize(this.drawn.roi) : (this.set.list[0] ?? null);
  }

  /** @param {Label | null} label */
  count(label) {
    return this.list.filter((sample) => sample.label === label).length;
  }

  /**
   * @param {Sample[]} samples
   * @param {Label | null} label null: to decide again
   */
  async label(samples, label) {
    for (const sample of samples) {
      if (sample.label === label) continue;
      const { kept, label: before, suspicious } = sample;
      if (!kept && label === null) continue; // the service knows good and bad alone
      Object.assign(sample, { label, problem: null, suspicious: suspicious && label === "ok" });
      if (kept) await this.set.change(kept, { label });
      else await this.move(sample, /** @type {Label} */ (before), /** @type {Label} */ (label));
    }
    this.onChange();
    void this.store();
  }

  /** An image that only the service has. @param {Sample} sample @param {Label} label @param {Label} to */
  async move(sample, label, to) {
    try {
      await call("datasets/move", { json: { ...idsOf(this.key), label, filename: sample.filename, to } });
    } catch (problem) {
      sample.label = label;
      this.onChange();
      throw problem;
    }
  }

  /** Bring to the service what it lacks; one at a time, however often it is called. */
  async store() {
    if (this.storing || !this.drawn?.roi) return;
    this.storing = true;
    this.stopped = null;
    try {
      for (;;) {
        await this.takeBack();
        const { pending } = this;
        const [first] = pending;
        if (!first) break;
        const batch = pending.filter((sample) => sample.label === first.label).slice(0, AT_ONCE);
        await this.upload(batch);
        this.onChange();
      }
    } catch (problem) {
      if (this.abort.signal.aborted) return;
      this.stopped = problem instanceof Error ? problem : new Error(String(problem));
    } finally {
      this.storing = false;
      if (!this.abort.signal.aborted) this.onChange();
    }
  }

  /** Delete or move in the service what is no longer so here. */
  async takeBack() {
    for (const sample of this.list) {
      const { kept } = sample;
      if (!kept?.stored) continue;
      const { label, filename, cut } = kept.stored;
      const changed = kept.label !== label || (cut !== this.cut && this.cut);
      if (changed && this.list.some((other) => other !== sample && other.kept?.stored?.filename === filename)) {
        await this.set.change(kept, { stored: null, duplicateOf: null }); // its twin goes on with the image
        sample.filename = null;
      } else if (kept.label === null || (cut !== this.cut && this.cut)) {
        // Its original is here, so it is stored again right away where it still has a label.
        await this.remove(label, filename);
        await this.set.change(kept, { stored: null });
        sample.filename = null;
      } else if (kept.label !== label) {
        await call("datasets/move", { json: { ...idsOf(this.key), label, filename, to: kept.label }, signal: this.abort.signal });
        await this.set.change(kept, { stored: { ...kept.stored, label: kept.label } });
      }
    }
  }

  /** @param {Label} label @param {string} filename */
  async remove(label, filename) {
    try {
      await send("datasets/file", { method: "DELETE", query: { ...idsOf(this.key), label, filename }, signal: this.abort.signal });
    } catch (problem) {
      if (!(problem instanceof ApiError && problem.code === "image_not_found")) throw problem;
    }
  }

  /** @param {Sample[]} batch of one label */
  async upload(batch) {
    const { drawn } = this;
    if (!drawn?.roi) return;
    const { cut } = this;
    const label = /** @type {Label} */ (batch[0].label);
    const form = formOf(this.key, { skip_duplicates: true });
    /** @type {Sample[]} */
    const sent = [];
    for (const sample of batch) {
      const kept = /** @type {KeptPicture} */ (sample.kept);
      try {
        const { name, crop, shape, mm_per_px } = sentOf(drawn.roi, await this.set.cut(kept, drawn), kept.name, drawn.mm_per_px);
        form.append("images", crop, name);
        const meta = { filename: name, mm_per_px, source_path: kept.folder ? `${kept.folder}/${name}` : name, console_cut: cut };
        form.append("metas", new Blob([JSON.stringify(shape ? { ...meta, shape_json: JSON.stringify(shape) } : meta)], { type: "application/json" }));
        sent.push(sample);
      } catch (problem) {
        sample.problem = messageOf(problem);
      }
    }
    if (!sent.length) return;
    try {
      const reply = await call(`datasets/${label}/upload`, { form, signal: this.abort.signal });
      await this.took(sent, reply, label, cut);
    } catch (problem) {
      if (!(problem instanceof ApiError) || problem.status < 400 || problem.status >= 500 || problem.status === 401) throw problem;
      if (batch.length === 1) batch[0].problem = problem.message;
      else for (const sample of sent) await this.upload([sample]); // one is refused: find out which
    }
  }

  /** @param {Sample[]} sent @param {any} reply @param {Label} label @param {string} cut */
  async took(sent, reply, label, cut) {
    for (const [index, sample] of sent.entries()) {
      const image = reply.images[index];
      const filename = image.filename ?? image.duplicate_of;
      const twin = this.list.find((other) => other !== sample && other.filename === image.duplicate_of);
      sample.filename = filename;
      const kept = /** @type {KeptPicture} */ (sample.kept);
      await this.set.change(kept, { stored: { label, filename, cut }, duplicateOf: twin?.kept ? twin.name : null });
      // Stored by an upload whose answer was lost, by a reload for example: it is this very picture.
      if (twin && !twin.kept) this.list = this.list.filter((other) => other !== twin);
    }
  }

  /**
   * @param {Sample} sample
   * @param {boolean} [isLarge] in its own size also where only the service has it
   * @returns {Promise<string>} address of its crop, exactly as it is or will be stored
   */
  urlOf(sample, isLarge = false) {
    const key = isLarge && !sample.kept ? `${sample.id} large` : sample.id;
    const found = this.urls.get(key) ?? this.cropOf(sample, isLarge).then((blob) => URL.createObjectURL(blob));
    this.urls.set(key, found);
    found.catch(() => this.urls.delete(key));
    return found;
  }

  /** @param {Sample} sample @param {boolean} isLarge @returns {Promise<Blob>} */
  async cropOf({ kept, label, filename }, isLarge) {
    if (kept && this.drawn?.roi) return (await this.set.cut(kept, this.drawn)).blob;
    return fetchBlob("datasets/file", { query: { ...idsOf(this.key), label: label ?? "ok", filename: filename ?? "", size: isLarge ? undefined : 256 }, signal: this.abort.signal });
  }

  /** Give the pictures of all other samples back. @param {Sample[]} samples those that are shown */
  keepUrls(samples) {
    const ids = new Set(samples.map(({ id }) => id));
    for (const [id, url] of this.urls) {
      if (ids.has(id)) continue;
      this.urls.delete(id);
      giveBack(url);
    }
  }

  close() {
    this.abort.abort();
    for (const url of this.urls.values()) giveBack(url);
    this.set.close();
  }
}

/** @param {KeptPicture} kept @returns {Sample} */
function sampleOf(kept) {
  const { id, name, folder, label, stored } = kept;
  return { id, name, folder, label, kept, filename: stored?.filename ?? null, problem: null, score: null, suspicious: false };
}
