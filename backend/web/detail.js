// @ts-check
/** In how many tiles a fit looks at a large ROI: what its size and the smallest defect ask for, what that gives, what it costs. */
import { field, fill, h, keepFocus } from "./dom.js";
import { keepText, keptText } from "./keep.js";
import { LIVE_PATIENCE_MS, secondsOfPass } from "./question.js";
import { roiText } from "./router.js";
import { number, t } from "./texts.js";

/** @typedef {{input_size: number, tokens: number}} Network pixels, and tokens, along a side of what it sees at once */
/** @typedef {{detail: number | null, defect_mm: number | null, mm_per_px: number | null}} Choice null: not chosen, nobody said; mm_per_px: when the defect was typed */
/** @typedef {{width: number, height: number}} Size of the ROI in pixels */

const DETAILS = [1, 2, 3, 4, 5];
const MOST_DETAIL = 5;
/** Tokens along the longer side that a round spot covers where it stands out. */
const TOKENS_OF_A_DEFECT = 0.6;
/** Without a smallest defect: pixels of the ROI that may become one of the network's. */
const MOST_SHRUNK = 2;
/** @type {Choice} */
const NOTHING_CHOSEN = { detail: null, defect_mm: null, mm_per_px: null };

/** Tokens along a side of the ROI: of those that two tiles share, each gives its half. @param {number} detail @param {Network} network */
function tokensOf(detail, { tokens }) {
  const margin = Math.min(Math.max(1, Math.floor(tokens / 16)), Math.floor((tokens - 1) / 2));
  return detail * tokens - (detail - 1) * 2 * margin;
}

/** Whether the tiles have a pixel for each of the ROI's. @param {number} detail @param {number} side @param {Network} network */
const showsAll = (detail, side, network) => (tokensOf(detail, network) * network.input_size) / network.tokens >= side;

/** The smallest detail that shows every pixel. @param {number} side @param {Network} network */
const enoughFor = (side, network) => DETAILS.find((detail) => showsAll(detail, side, network)) ?? MOST_DETAIL;

/**
 * What the service chooses by `detail=auto`.
 * @param {number} side pixels of the ROI's longer side
 * @param {number | null} defect pixels of the smallest defect that matters
 * @param {Network} network
 */
function proposedFor(side, defect, network) {
  const most = enoughFor(side, network);
  if (defect === null) return Math.min(enoughFor(side / MOST_SHRUNK, network), most);
  return Math.min(DETAILS.find((detail) => side / tokensOf(detail, network) <= defect / TOKENS_OF_A_DEFECT) ?? most, most);
}

export class DetailChoice {
  /** @param {import("./api.js").RoiKey} key */
  constructor(key) {
    this.name = `detail:${roiText(key)}`;
    /** @type {Network} */
    this.network = { input_size: 1, tokens: 1 };
    /** @type {Size} */
    this.size = { width: 1, height: 1 };
    this.mm_per_px = 1;
    /** @type {number | null} the model's detail; null: there is no model */
    this.fitted = null;
    this.offered = false;
    this.label = h("span");
    this.defect = h("input", { id: "detail-defect", type: "number", min: 0.000001, max: 1000000, step: "any", inputmode: "decimal", autocomplete: "off", onchange: () => this.typed() });
    this.unchosen = h("option", { value: "" }, t("detail.unchosen"));
    this.select = h(
      "select",
      { id: "detail-number", onchange: () => this.change({ detail: Number(this.select.value) || null }) },
      this.unchosen,
      DETAILS.map((detail) => h("option", { value: detail }, t(detail === 1 ? "detail.whole" : "detail.tiles", { detail }))),
    );
    this.take = h("button", { onclick: () => this.takeProposed() });
    this.told = h("div.detail-told", { role: "status" });
    this.summary = h("summary");
    this.node = h(
      "details.detail",
      { hidden: true },
      this.summary,
      h("p.hint", {}, t("detail.hint")),
      h(
        "div.row",
        {},
        field(this.label, this.defect),
        field(t("detail.number"), this.select),
        this.take,
      ),
      this.told,
    );
  }

  /** @returns {Choice} kept in this browser: the detail until a fit has it */
  get choice() {
    return { ...NOTHING_CHOSEN, ...JSON.parse(keptText(this.name) ?? "{}") };
  }

  get side() {
    return Math.max(this.size.width, this.size.height);
  }

  /** The smallest defect in mm, or in pixels before the scale is measured. If the unit changed since it was typed, its length on the picture stays. */
  get defect_mm() {
    const { defect_mm, mm_per_px } = this.choice;
    if (defect_mm === null || mm_per_px === null || (mm_per_px === 1) === (this.mm_per_px === 1)) return defect_mm;
    return Number(((defect_mm / mm_per_px) * this.mm_per_px).toPrecision(9));
  }

  /** What is proposed for this ROI. */
  get proposed() {
    const { defect_mm } = this;
    return proposedFor(this.side, defect_mm && defect_mm / this.mm_per_px, this.network);
  }

  /** What the next fit has, as far as that is known here. */
  get detail() {
    return this.choice.detail ?? this.fitted ?? 1;
  }

  /** The fields of a fit: nothing where nobody chose, and a model keeps its detail. @returns {{detail?: number, smallest_defect_mm?: number}} */
  get fields() {
    const { detail, defect_mm } = this.offered ? { detail: this.choice.detail, defect_mm: this.defect_mm } : NOTHING_CHOSEN;
    return { detail: detail ?? this.fitted ?? undefined, smallest_defect_mm: defect_mm ?? undefined };
  }

  /**
   * @param {Size | null} size null: it is not known here
   * @param {{mm_per_px: number, fitted: number | null, network: Network}} known fitted: the model's detail; null: there is no model
   */
  show(size, { mm_per_px, fitted, network }) {
    const wasOffered = this.offered;
    Object.assign(this, { mm_per_px, fitted, network, size: size ?? this.size });
    this.offered = size !== null && (this.side > network.input_size || (fitted ?? 1) > 1);
    this.node.hidden = !this.offered;
    if (!this.offered) return;
    this.update();
    if (!wasOffered) this.node.open = this.proposed > this.detail;
  }

  update() {
    const { detail, fitted, proposed, choice, defect_mm } = this;
    fill(this.summary, t(proposed === detail ? "detail.now" : "detail.now_proposed", { detail, proposed }));
    fill(this.label, t("detail.defect", { unit: this.mm_per_px === 1 ? "px" : "mm" }));
    if (document.activeElement !== this.defect) this.defect.value = defect_mm === null ? "" : String(defect_mm);
    this.unchosen.hidden = this.unchosen.disabled = fitted !== null; // it keeps its detail
    this.select.value = String(choice.detail ?? fitted ?? "");
    this.take.hidden = proposed === detail;
    fill(this.take, t("detail.take", { detail: proposed }));
    const told = this.sentences();
    if (this.told.textContent !== told.join("")) fill(this.told, told.map((text) => h("p", {}, text))); // said aloud once
  }

  /** What the detail and the proposed one give, and what they cost. @returns {string[]} */
  sentences() {
    const { detail, proposed, size } = this;
    const both = [...new Set([detail, proposed])].sort();
    return [t("detail.size", { ...size }), ...both.map((one) => this.about(one))];
  }

  /** @param {number} detail */
  about(detail) {
    const { side, mm_per_px, network, defect_mm } = this;
    const pitch = side / tokensOf(detail, network);
    const covered = defect_mm && defect_mm / mm_per_px / pitch;
    const enough = enoughFor(side, network);
    const passes = detail ** 2;
    const seconds = (secondsOfPass() ?? 0) * passes;
    return [
      t("detail.gives", { detail, length: `${number(pitch)} px${mm_per_px === 1 ? "" : `, ${number(pitch * mm_per_px)} mm`}` }),
      covered && t(covered < TOKENS_OF_A_DEFECT ? "detail.misses" : "detail.covers", { share: number(covered), least: TOKENS_OF_A_DEFECT }),
      detail > enough && t("detail.enlarges", { enough }),
      passes > 1 && t("detail.costs", { passes }),
      passes > 1 && seconds && t("detail.seconds", { seconds: number(seconds) }),
      passes > 1 && seconds * 1000 > LIVE_PATIENCE_MS && t("detail.late"),
    ].filter(Boolean).join(" ");
  }

  typed() {
    const value = this.defect.valueAsNumber;
    if (!this.defect.validity.valid) this.defect.reportValidity();
    else this.change({ defect_mm: Number.isNaN(value) ? null : value, mm_per_px: this.mm_per_px });
  }

  takeProposed() {
    keepFocus(this.node, () => this.change({ detail: this.proposed }));
  }

  /** @param {Partial<Choice>} change */
  change(change) {
    keepText(this.name, JSON.stringify({ ...this.choice, ...change }));
    this.update();
  }

  /** A fit has it: from now on the model says which detail it has. */
  done() {
    this.change({ detail: null });
  }
}
