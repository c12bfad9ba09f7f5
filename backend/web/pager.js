// @ts-check
/** Turns the pages of a list that is too long to be shown at once. */
import { fill, h, icon } from "./dom.js";
import { t } from "./texts.js";

export const PER_PAGE = 200;

/** @param {number} n how long the list is @returns {number} at least one */
export function pagesOf(n) {
  return Math.max(1, Math.ceil(n / PER_PAGE));
}

/**
 * @template T
 * @param {T[]} list
 * @param {number} page from 0
 */
export function onPage(list, page) {
  return list.slice(page * PER_PAGE, (page + 1) * PER_PAGE);
}

/** @param {(page: number) => void} onTurn */
export function pager(onTurn) {
  let shown = "";
  const before = h("button.icon-button", { "aria-label": t("page.before"), onclick: () => onTurn(Number(pages.value) - 1) }, icon("left"));
  const after = h("button.icon-button", { "aria-label": t("page.after"), onclick: () => onTurn(Number(pages.value) + 1) }, icon("right"));
  const pages = h("select", { "aria-label": t("page.shown"), onchange: () => onTurn(Number(pages.value)) });
  const node = h("div.row.middle", { role: "group", "aria-label": t("page.label"), hidden: true }, before, pages, after);
  return {
    node,
    /** @param {number} page @param {number} n how long the list is */
    show(page, n) {
      const last = pagesOf(n) - 1;
      if (shown !== String(n)) {
        shown = String(n);
        node.hidden = last === 0;
        const options = Array.from({ length: last + 1 }, (_, at) =>
          h("option", { value: String(at) }, t("page.range", { from: at * PER_PAGE + 1, to: Math.min(n, (at + 1) * PER_PAGE), n })),
        );
        fill(pages, options);
      }
      pages.value = String(page);
      before.disabled = page === 0;
      after.disabled = page === last;
    },
  };
}
