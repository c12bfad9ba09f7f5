// @ts-check
/** Every text that people read comes from one catalogue; numbers are written as the catalogue's language has them. */
import catalogue from "./texts/en.js";

const LANGUAGE = "en";
const plurals = new Intl.PluralRules(LANGUAGE);

/**
 * A text of the catalogue, with its `{names}` replaced.
 * @param {keyof typeof catalogue} key
 * @param {Record<string, string | number>} [values] `n` chooses between the forms of a text that has several
 * @returns {string}
 */
export function t(key, values = {}) {
  /** @type {string | {one: string, other: string}} */
  const entry = catalogue[key];
  if (entry === undefined) throw new Error(`no text ${key}`);
  const text = typeof entry === "string" ? entry : plurals.select(Number(values.n)) === "one" ? entry.one : entry.other;
  return text.replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? `{${name}}`));
}

/**
 * A score or a threshold: four digits behind the point.
 * @param {number} value
 */
export function score(value) {
  return value.toFixed(4);
}

/**
 * A number with at most three significant digits, or as many as it has before the point.
 * @param {number} value
 */
export function number(value) {
  if (value === 0) return "0";
  const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  return String(Number(value.toFixed(Math.min(digits, 8))));
}

/**
 * A bound as percent, rounded up: it is not made to look smaller than it is.
 * @param {number} rate 0 to 1
 */
export function percentUp(rate) {
  const percent = 100 * rate;
  const digits = percent >= 10 ? 0 : percent >= 1 ? 1 : 2;
  return (Math.ceil(Number((percent * 10 ** digits).toFixed(6))) / 10 ** digits).toFixed(digits);
}

/**
 * A moment of the service in the time of this computer.
 * @param {string} utc
 */
export function moment(utc) {
  const date = new Date(utc);
  return Number.isNaN(date.getTime()) ? utc : date.toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
}

/** What an error says. @param {unknown} problem */
export function messageOf(problem) {
  return problem instanceof Error ? problem.message : String(problem);
}
