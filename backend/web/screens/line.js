// @ts-check
/** Line: a card for each ROI with its state and what to do next; the way to a new one. */
import { call, fetchBlob, idsOf } from "../api.js";
import { field, fill, h, icon } from "../dom.js";
import { guiFiles } from "../gui-files.js";
import { freshIds } from "../layout.js";
import { hashOf, nameKey, roiText } from "../router.js";
import { nextStep, SCREEN_OF } from "../rois.js";
import { score, t } from "../texts.js";
import { Few, giveBack } from "../thumbnails.js";

/** @typedef {import("../main.js").App} App */
/** @typedef {import("../rois.js").RoiFacts} RoiFacts */

const DEFAULT_RECIPE = "default";
const AT_ONCE = 4;
/** So many cards nobody needs to search. */
const SEARCHED_FROM = 12;
const STEPS = /** @type {const} */ (["roi", "samples", "threshold", "inspect"]);
/** What a recipe and a ROI may be called: as the service has it, without what cannot be seen. */
const NAME_PATTERN = "[^\\u0000-\\u001f\\u007f]{1,60}";

/** @type {import("../main.js").OpenScreen} */
export default function line(app) {
  const list = h("div.cards");
  const note = h("p.muted", { role: "status" }, t("line.loading"));
  const picker = h("select", { id: "recipe", onchange: show });
  const search = h("input", { type: "search", id: "line-find", autocomplete: "off", oninput: () => show() });
  const find = h("label.inline", { for: "line-find", hidden: true }, h("span", {}, t("line.find")), search);
  const create = h("button.primary", { onclick: () => openForm() }, icon("plus"), t("line.new"));
  const place = h("div");
  const files = guiFiles(app, () => (chosen === all ? (app.session.value.rois?.[0]?.recipe_id ?? "") : chosen), (recipe) => {
    chosen = app.session.value.rois?.find((roi) => roi.recipe_id.toLowerCase() === recipe.toLowerCase())?.recipe_id ?? all;
    sessionStorage.setItem("recipe", chosen);
    picker.value = chosen;
    show();
  });
  const steps = h(
    "ol.panel.steps",
    { hidden: true },
    STEPS.map((step) => h("li", {}, icon(step), h("strong", {}, t(`nav.${step}`)), h("span", {}, t(`line.step.${step}`)))),
  );
  const choice = h("label.inline", { for: "recipe", hidden: true }, h("span", {}, t("line.recipe")), picker);
  const node = h(
    "section.screen",
    {},
    h(
      "header.screen-head",
      {},
      h("h1", {}, t("nav.line")),
      choice,
      find,
      h("span.spacer"),
      create,
    ),
    place,
    note,
    steps,
    list,
    files.node,
  );

  const few = new Few(AT_ONCE);
  /** @type {Map<string, Promise<string | null>>} addresses of pictures by ROI and number of its pictures */
  const urls = new Map();
  /** @type {WeakMap<Element, RoiFacts>} */
  const pictured = new WeakMap();
  // A line may have hundreds of ROIs: only pictures that are seen are asked for.
  const watcher = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      const roi = pictured.get(target);
      if (!isIntersecting || !roi) continue;
      watcher.unobserve(target);
      void showPicture(target, roi);
    }
  }, { root: document.querySelector("main"), rootMargin: "300px" });
  const all = "";
  let chosen = sessionStorage.getItem("recipe") ?? all;
  let closed = false;

  /** @param {any} place @param {RoiFacts} roi */
  async function showPicture(place, roi) {
    const id = `${roiText(roi)} ${roi.n_ok}`;
    const asked = urls.get(id) ?? few.run(() => (closed ? null : pictureOf(roi)));
    urls.set(id, asked);
    const src = await asked;
    if (src) fill(place, h("img", { src, alt: "" }));
  }

  function show() {
    if (picker.options.length) chosen = picker.value;
    sessionStorage.setItem("recipe", chosen);
    const { rois } = app.session.value;
    create.hidden = !app.mayChange;
    files.show();
    if (!rois) return;
    choice.hidden = rois.length === 0;
    const recipes = [...new Set(rois.map((roi) => roi.recipe_id))];
    if (!recipes.includes(chosen)) chosen = all;
    fill(picker, h("option", { value: all }, t("line.all_recipes")), recipes.map((name) => h("option", { value: name }, name)));
    picker.value = chosen;
    const ofRecipe = rois.filter((roi) => chosen === all || roi.recipe_id === chosen);
    find.hidden = ofRecipe.length < SEARCHED_FROM;
    const text = find.hidden ? "" : search.value.trim().toLowerCase();
    const shown = ofRecipe.filter((roi) => !text || textOf(roi).includes(text));
    steps.hidden = rois.length > 0 || create.hidden;
    if (text) fill(note, t("line.found", { n: shown.length, all: ofRecipe.length }));
    else fill(note, shown.length ? t("line.count", { n: shown.length }) : t(create.hidden ? "line.empty_infer" : "line.empty"));
    watcher.disconnect();
    fill(list, shown.map((roi) => card(roi)));
    for (const [at, picture] of [...list.querySelectorAll(".card-picture")].entries()) {
      pictured.set(picture, shown[at]);
      watcher.observe(picture);
    }
  }

  function openForm() {
    const close = () => {
      fill(place);
      create.disabled = false;
      create.focus();
    };
    create.disabled = true;
    const form = newRoi(app, chosen || DEFAULT_RECIPE, close);
    fill(place, form);
    form.querySelector("input").focus();
  }

  const unwatch = app.session.watch(show);
  return {
    node,
    ready: app.refresh(),
    close() {
      closed = true;
      unwatch();
      watcher.disconnect();
      for (const url of urls.values()) giveBack(url);
    },
  };
}

/** @param {RoiFacts} roi */
function card(roi) {
  const step = nextStep(roi);
  const picture = h("div.card-picture", { "aria-hidden": "true" }, icon("roi"));
  const facts = [
    t("card.pictures", { good: roi.n_ok, bad: roi.n_ng }),
    roi.threshold === null ? null : t("card.threshold", { threshold: score(roi.threshold) }),
    roi.detail > 1 && t("card.detail", { detail: roi.detail }),
  ];
  return h(
    "article.card",
    { "data-roi": roi.roi_id },
    picture,
    h(
      "div.card-body",
      {},
      h("h2", {}, h("a", { href: hashOf(SCREEN_OF[step], roi) }, roi.name)),
      h("p.muted", {}, t("card.ids", { recipe: roi.recipe_id, role: roi.role_id, roi: roi.roi_id })),
      h("p", {}, h(`span.badge.${badgeOf(step)}`, {}, t(`card.state.${step}`)), roi.drawn?.enabled === false ? [" ", h("span.badge", {}, t("rois.off"))] : null),
      h("p.muted.card-facts", {}, facts.map((fact) => fact && h("span", {}, fact))),
    ),
    h("a.button.primary", { href: hashOf(SCREEN_OF[step], roi) }, t(`card.next.${step}`)),
  );
}

/** @param {import("../rois.js").Step} step */
function badgeOf(step) {
  return step === "inspect" ? "good" : step === "drift" || step === "refit" || step === "threshold" ? "warn" : "plain";
}

/** What a ROI is found by. @param {RoiFacts} roi */
function textOf(roi) {
  return [roi.name, roi.recipe_id, roi.role_id, roi.roi_id, t(`card.state.${nextStep(roi)}`)].join(" ").toLowerCase();
}

/** @param {RoiFacts} roi @returns {Promise<string | null>} address of its newest good picture; null: it has none */
async function pictureOf(roi) {
  if (!roi.n_ok) return null;
  const { classes } = await call("datasets/list", { query: idsOf(roi) });
  const filename = classes.ok.files.at(-1);
  if (!filename) return null; // deleted since
  return URL.createObjectURL(await fetchBlob("datasets/file", { query: { ...idsOf(roi), label: "ok", filename, size: 256 } }));
}

/**
 * The form that begins the journey.
 * @param {App} app
 * @param {string} recipe
 * @param {() => void} close
 */
function newRoi(app, recipe, close) {
  const name = h("input", { id: "new-name", required: true, pattern: NAME_PATTERN, maxlength: 60, autocomplete: "off", value: app.session.value.rois?.length ? "" : t("new.name_default") });
  const where = h("input", { id: "new-recipe", required: true, pattern: NAME_PATTERN, maxlength: 60, autocomplete: "off", value: recipe });
  return h(
    "form.panel",
    {
      /** @param {Event} event */
      onsubmit(event) {
        event.preventDefault();
        begin(app, where.value.trim() || DEFAULT_RECIPE, name.value.trim());
      },
    },
    h("h2", {}, t("line.new")),
    h("p.muted", {}, t("new.intro")),
    h(
      "div.row",
      {},
      field(t("roi.name"), name),
      field(t("line.recipe"), where),
      h("button.primary", { type: "submit" }, t("new.begin")),
      h("button", { onclick: close }, t("cancel")),
    ),
  );
}

/** @param {App} app @param {string} recipe @param {string} name */
function begin(app, recipe, name) {
  if (recipe.toLowerCase() === "last") {
    app.say("error", t("new.reserved"));
    return;
  }
  // New in every recipe: else a recipe without a model of its own would be served that of the default recipe.
  const taken = new Set((app.session.value.rois ?? []).map((roi) => roi.roi_id));
  const roi = { recipe_id: recipe, ...freshIds(taken) };
  sessionStorage.setItem(nameKey(roi), name);
  app.go("roi", roi);
}
