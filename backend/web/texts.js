// @ts-check
/** Every text that people read comes from the catalogue of one language; numbers and times are written as it has them. */

/** @typedef {typeof import("./texts/en.js").default} English */
/** @typedef {typeof import("./texts/later/en.js").default} LaterEnglish of the screens that import `texts-later.js` */
/** @typedef {keyof English | keyof LaterEnglish} TextKey */
/** @typedef {{one: string, many?: string, other: string}} Plural by the categories of Intl.PluralRules; without `many` it is `other` */
/** @template Texts @typedef {{[Key in keyof Texts]: Texts[Key] extends string ? string : Plural}} Translated */
/** @typedef {Translated<English>} Catalogue */
/** @typedef {Translated<LaterEnglish>} LaterCatalogue */
/** @typedef {keyof typeof LANGUAGES} Language */

/** Each by its own name: who cannot read the page finds it. */
export const LANGUAGES = { en: "English", es: "Español" };
/** @type {Record<Language, () => Promise<{default: Catalogue}>>} */
const LOADERS = { en: () => import("./texts/en.js"), es: () => import("./texts/es.js") };
const CHOICE = "language";

export const language = chosen() ?? preferred() ?? "en";
/** As the browser writes numbers and times in this language: with a comma in Spain, with a point in Mexico. */
const LOCALE = navigator.languages.find((tag) => base(tag) === language) ?? language;
const POINT = new Intl.NumberFormat(LOCALE).formatToParts(0.5).find(({ type }) => type === "decimal")?.value ?? ".";
const plurals = new Intl.PluralRules(language);
/** @type {Record<string, string | Plural>} the one in use alone is loaded */
const catalogue = { ...(await LOADERS[language]()).default };
document.documentElement.lang = language;

/** @param {string} tag such as es-MX */
function base(tag) {
  return tag.split("-")[0].toLowerCase();
}

/** @param {string | null} name @returns {name is Language} */
function isKnown(name) {
  return name !== null && Object.hasOwn(LANGUAGES, name);
}

/** What a person chose in this browser. */
function chosen() {
  const name = localStorage.getItem(CHOICE);
  return isKnown(name) ? name : null;
}

/** The first of the browser's languages that has a catalogue. */
function preferred() {
  return navigator.languages.map(base).find(isKnown);
}

/**
 * Show the console in another language, now and from now on. The page is loaded anew, so that no text of before is left.
 * @param {Language} name
 */
export function useLanguage(name) {
  localStorage.setItem(CHOICE, name);
  location.reload();
}

/** Put more texts into the catalogue. @param {LaterCatalogue} texts of the language in use */
export function addTexts(texts) {
  Object.assign(catalogue, texts);
}

/**
 * A text of the catalogue, with its `{names}` replaced.
 * @param {TextKey} key
 * @param {Record<string, string | number>} [values] `n` chooses between the forms of a text that has several
 * @returns {string}
 */
export function t(key, values = {}) {
  const entry = catalogue[key];
  if (entry === undefined) throw new Error(`no text ${key}`);
  const text = typeof entry === "string" ? entry : formOf(entry, Number(values.n));
  return text.replace(/\{(\w+)\}/g, (_, name) => written(values[name] ?? `{${name}}`));
}

/** @param {Plural} forms @param {number} n */
function formOf({ one, many, other }, n) {
  const category = plurals.select(n);
  return category === "one" ? one : category === "many" ? (many ?? other) : other;
}

/** A number with all its digits. @param {string | number} value a text stays as it is */
export function written(value) {
  return typeof value === "number" ? String(value).replace(".", POINT) : value;
}

/**
 * A number with so many digits behind the point.
 * @param {number} value
 * @param {number} digits
 */
export function fixed(value, digits) {
  return value.toFixed(digits).replace(".", POINT);
}

/**
 * A score or a threshold: four digits behind the point.
 * @param {number} value
 */
export function score(value) {
  return fixed(value, 4);
}

/**
 * A number with at most three significant digits, or as many as it has before the point.
 * @param {number} value
 */
export function number(value) {
  if (value === 0) return "0";
  const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  return written(Number(value.toFixed(Math.min(digits, 8))));
}

/**
 * A bound as percent, rounded up: it is not made to look smaller than it is.
 * @param {number} rate 0 to 1
 */
export function percentUp(rate) {
  const percent = 100 * rate;
  const digits = percent >= 10 ? 0 : percent >= 1 ? 1 : 2;
  return fixed(Math.ceil(Number((percent * 10 ** digits).toFixed(6))) / 10 ** digits, digits);
}

/**
 * A moment of the service in the time of this computer.
 * @param {string} utc
 */
export function moment(utc) {
  const date = new Date(utc);
  return Number.isNaN(date.getTime()) ? utc : date.toLocaleString(LOCALE, { dateStyle: "medium", timeStyle: "short" });
}

/** The time of a day. @param {Date} date */
export function clock(date) {
  return date.toLocaleTimeString(LOCALE);
}

/** What an error says. @param {unknown} problem */
export function messageOf(problem) {
  return problem instanceof Error ? problem.message : String(problem);
}
