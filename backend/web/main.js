// @ts-check
/** The frame: bar, navigation, messages, the dialog for the key; and in its middle the screen that the address names. */
import { ApiError, call, currentKey, hooks, useKey } from "./api.js";
import { field, fill, h, icon } from "./dom.js";
import { Heartbeat, lamp } from "./heartbeat.js";
import { listRois } from "./rois.js";
import { hashOf, liveHashOf, nameKey, routeOf, roiText, SCREENS } from "./router.js";
import { Store } from "./store.js";
import { language, LANGUAGES, messageOf, t, useLanguage } from "./texts.js";

/** @typedef {import("./router.js").Route} Route */
/** @typedef {import("./router.js").ScreenName} ScreenName */
/** @typedef {import("./api.js").RoiKey} RoiKey */
/** @typedef {import("./rois.js").RoiFacts} RoiFacts */
/** @typedef {"unknown" | "none" | "infer" | "full"} Access  none: the service has keys, and this tab has none of them */
/** @typedef {{access: Access, rois: RoiFacts[] | null, limits: Record<string, number>, network: import("./detail.js").Network}} Session */
/** @typedef {{node: Element, close?: () => void, ready?: Promise<unknown>, turnTo?: (roi: RoiKey) => boolean}} Screen  ready: fails where it cannot be shown; turnTo: show another ROI, if it can without being opened anew */
/** @typedef {(app: App, roi: RoiKey | null, recipe: string) => Screen} OpenScreen roi: of which it is; null: of none, or of any */
/**
 * What a screen may use.
 * @typedef {object} App
 * @property {Store<Session>} session
 * @property {Heartbeat} heartbeat
 * @property {boolean} mayChange whether this tab may change what the service stores
 * @property {(kind: "error" | "warning" | "done", text: string) => void} say
 * @property {(screen: ScreenName, roi: RoiKey | null) => void} go
 * @property {(recipe?: string) => Promise<RoiFacts[]>} refresh the list of ROIs, or those of a recipe, from the service
 * @property {(roi: RoiKey) => RoiFacts | null} facts of a ROI in that list
 */

const SHOWN_MS = { error: 20000, warning: 20000, done: 5000 };
/** @type {Record<ScreenName, () => Promise<{default: OpenScreen}>>} */
const LOADERS = {
  line: () => import("./screens/line.js"),
  roi: () => import("./screens/roi.js"),
  samples: () => import("./screens/samples.js"),
  threshold: () => import("./screens/threshold.js"),
  inspect: () => import("./screens/inspect.js"),
  live: () => import("./screens/live.js"),
  review: () => import("./screens/review.js"),
  health: () => import("./screens/health.js"),
};

const session = new Store(/** @type {Session} */ ({ access: "unknown", rois: null, limits: {}, network: { input_size: 448, tokens: 32 } }));
const heartbeat = new Heartbeat();
const messages = h("div.messages", { role: "status", "aria-live": "polite" });
const navigation = h("nav.navigation", { "aria-label": t("nav.label") });
const main = h("main.main", { id: "main", tabindex: "-1" });
const title = h("span.bar-roi");
const languages = h(
  "span.languages",
  {},
  /** @type {import("./texts.js").Language[]} */ (Object.keys(LANGUAGES))
    .filter((name) => name !== language)
    .map((name) => h("button.icon-button", { lang: name, "aria-label": LANGUAGES[name], title: LANGUAGES[name], onclick: () => useLanguage(name) }, name.toUpperCase())),
);

/** @type {App} */
const app = {
  session,
  heartbeat,
  get mayChange() {
    return session.value.access !== "infer" && session.value.access !== "none";
  },
  say(kind, text) {
    if ([...messages.children].some((shown) => shown.dataset.text === text)) return;
    const message = h(`div.message.${kind}`, { "data-text": text, role: kind === "error" ? "alert" : null }, h("p", {}, text));
    message.append(
      h("button.icon-button", { "aria-label": t("message.close"), onclick: () => { message.remove(); main.focus({ preventScroll: true }); } }, icon("cross")),
    );
    messages.append(message);
    setTimeout(() => message.remove(), SHOWN_MS[kind]);
  },
  go(screen, roi) {
    location.hash = hashOf(screen, roi);
  },
  async refresh(recipe) {
    const fresh = await listRois(recipe);
    const others = (session.value.rois ?? []).filter((roi) => recipe !== undefined && roi.recipe_id.toLowerCase() !== recipe.toLowerCase());
    session.set({ rois: [...others, ...fresh] });
    return fresh;
  },
  facts(roi) {
    return session.value.rois?.find((known) => roiText(known) === roiText(roi)) ?? null;
  },
};

/** Whether the screen misses what the service did not answer: then it is opened again when the service is back. */
let misses = false;
/** @type {Screen | null} */
let shown = null;
/** @type {ScreenName | null} */
let shownName = null;
let opened = 0;

async function open() {
  const route = routeOf(location.hash);
  const number = ++opened;
  showNavigation(route);
  const isSame = shownName === route.screen && !misses;
  if (isSame && route.roi && shown?.turnTo?.(route.roi)) return;
  const screen = await LOADERS[route.screen]();
  if (number !== opened) return; // another one was asked for meanwhile
  shown?.close?.();
  misses = false;
  shown = screen.default(app, route.roi, route.recipe);
  shownName = route.screen;
  fill(main, shown.node);
  main.focus({ preventScroll: true });
  main.scrollTop = 0;
  shown.ready?.catch((problem) => {
    if (number === opened) showProblem(route.screen, problem);
  });
}

/** Instead of a screen that would wait for ever. @param {ScreenName} screen @param {unknown} problem */
function showProblem(screen, problem) {
  misses ||= problem instanceof ApiError && problem.status === 0;
  const again = h("button", { onclick: () => void open() }, t("again"));
  fill(main, h("section.screen", {}, h("h1", {}, t(`nav.${screen}`)), h("div.notice.bad", { role: "alert" }, h("p", {}, messageOf(problem)), again)));
}

/** @param {Route} route */
function showNavigation(route) {
  const name = route.roi ? (app.facts(route.roi)?.name ?? sessionStorage.getItem(nameKey(route.roi)) ?? route.roi.roi_id) : route.recipe;
  fill(title, name ? [h("span.bar-sep", { "aria-hidden": "true" }, "/"), name] : null);
  languages.hidden = route.screen !== "line"; // where the others have the name of their ROI
  const recipe = route.recipe || theOneRecipe();
  document.title = name ? t("app.title_of", { name }) : t("app.name");
  fill(
    navigation,
    SCREENS.map((screen) => {
      const current = screen === route.screen;
      const content = [icon(screen), h("span", {}, t(`nav.${screen}`))];
      if (screen === "live" && !route.roi && recipe) return h("a.nav-link", { href: liveHashOf(recipe), "aria-current": current ? "page" : null }, content);
      if (screen !== "line" && !route.roi)
        return h("span.nav-link.off", { "aria-disabled": "true", title: t("nav.choose_first") }, content);
      const roi = screen === "line" ? null : route.roi;
      return h("a.nav-link", { href: hashOf(screen, roi), "aria-current": current ? "page" : null }, content);
    }),
  );
}

/** The recipe that is meant where none is named. */
function theOneRecipe() {
  const recipes = new Set(session.value.rois?.filter((roi) => roi.drawn).map((roi) => roi.recipe_id));
  const chosen = sessionStorage.getItem("recipe") ?? "";
  return recipes.has(chosen) ? chosen : recipes.size === 1 ? [...recipes][0] : "";
}

/** @type {Promise<boolean> | null} */
let asking = null;

/**
 * One dialog for however many requests were refused.
 * @param {string} reason
 * @returns {Promise<boolean>} whether there is a key to try
 */
function askForKey(reason) {
  asking ??= new Promise((resolve) => {
    const input = h("input", {
      type: "password", name: "key", autocomplete: "off", spellcheck: "false", required: true, id: "key-input",
    });
    let given = false;
    const dialog = h(
      "dialog.dialog",
      { "aria-labelledby": "key-title", onclose: end },
      h(
        "form",
        { onsubmit: take },
        h("h2", { id: "key-title" }, icon("key"), t("key.title")),
        h("p", {}, reason),
        field(t("key.label"), input),
        h("p.hint", {}, t("key.hint")),
        h("div.row.end", {}, h("button", { onclick: () => dialog.close() }, t("key.without")), h("button.primary", { type: "submit" }, t("key.use"))),
      ),
    );
    /** @param {Event} event */
    function take(event) {
      event.preventDefault();
      given = true;
      useKey(input.value.trim());
      dialog.close();
    }
    function end() {
      dialog.remove();
      asking = null;
      resolve(given);
      if (given) void learnAccess();
    }
    document.body.append(dialog);
    dialog.showModal();
  });
  return asking;
}

/** What this tab may do. */
async function learnAccess() {
  try {
    const health = await call("health", { quiet: true, timeoutMs: 5000 });
    const network = health.token_shape ? { input_size: health.input_size, tokens: health.token_shape[0] } : session.value.network;
    session.set({ access: accessOf(health), limits: health.limits ?? {}, network });
  } catch {
    return; // the lamp says that the service does not answer; asked again when it does
  }
}

/** @param {any} health @returns {Access} */
function accessOf(health) {
  if (health.access) return health.access;
  return health.status === "ok" && !health.weights_sha256 ? "none" : "unknown";
}

/** @param {Session} value */
function accessText({ access }) {
  if (access === "infer") return t("access.infer");
  if (access === "none") return t("access.none");
  return currentKey() ? t("access.full") : t("access.open");
}

function frame() {
  const access = h("span.access");
  session.watch((value) => fill(access, value.access === "unknown" ? null : accessText(value)));
  const keyButton = h("button.icon-button", { "aria-label": t("key.change"), title: t("key.change"), onclick: changeKey }, icon("key"));
  document.body.append(
    h("a.skip", { href: "#main", onclick: skip }, t("nav.skip")),
    h(
      "header.bar",
      {},
      h("a.brand", { href: "#/line" }, h("img", { src: "console/icon.svg", alt: "", width: 28, height: 28 }), h("span", {}, t("app.name"))),
      title,
      h("span.spacer"),
      access,
      languages,
      keyButton,
      h("a.icon-button", { href: "docs", target: "_blank", rel: "noreferrer", "aria-label": t("nav.docs"), title: t("nav.docs") }, icon("book")),
      lamp(heartbeat),
    ),
    navigation,
    main,
    messages,
  );
}

/** @param {Event} event */
function skip(event) {
  event.preventDefault(); // the address names the screen
  main.focus();
}

async function changeKey() {
  if (await askForKey(t("key.change_reason"))) await reopen();
}

async function reopen() {
  try {
    await app.refresh();
  } catch (problem) {
    app.say("error", messageOf(problem));
  }
  await open();
}

/** All screens, so that those open, too, that were not seen before the service stopped. */
async function loadScreens() {
  await Promise.allSettled([...Object.values(LOADERS), () => import("./detail.js")].map((load) => load())); // one that fails is asked for again when it is opened
}

function start() {
  hooks.askForKey = askForKey;
  hooks.onWait = (seconds, error) => app.say("warning", t("api.waits", { error, seconds }));
  addEventListener("unhandledrejection", (event) => {
    event.preventDefault();
    misses ||= event.reason instanceof ApiError && event.reason.status === 0;
    if (event.reason?.name !== "AbortError") app.say("error", event.reason?.message ?? String(event.reason));
  });
  // A file that is dropped beside a place for it must not take the page away.
  for (const name of ["dragover", "drop"]) addEventListener(name, (event) => event.preventDefault());
  addEventListener("hashchange", () => void open());
  frame();
  let { access } = session.value;
  session.watch((value) => {
    showNavigation(routeOf(location.hash));
    if (value.access === access) return;
    access = value.access;
    if (opened) void open(); // screens show what may be done
  });
  let wasThere = false;
  heartbeat.state.watch(({ status }) => {
    const isThere = status === "ok";
    if (isThere && !wasThere && opened) void learnAccess();
    if (isThere && misses) void open();
    wasThere = isThere;
  });
  heartbeat.start();
  void learnAccess().then(open).then(loadScreens);
}

start();
