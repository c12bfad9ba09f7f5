// @ts-check
/** Which screen is open for which ROI: it stands behind the # of the address, so that a reload and a bookmark keep it. */

/** @typedef {import("./api.js").RoiKey} RoiKey */
/** @typedef {"line" | "roi" | "samples" | "threshold" | "inspect" | "live" | "review" | "health"} ScreenName */
/** @typedef {{screen: ScreenName, roi: RoiKey | null, recipe: string}} Route recipe: empty where there is no ROI and it is not named */

export const SCREENS = /** @type {ScreenName[]} */ (["line", "roi", "samples", "threshold", "inspect", "live", "review", "health"]);

/**
 * @param {string} hash
 * @returns {Route} the line for what is no screen
 */
export function routeOf(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
  const screen = SCREENS.find((name) => name === path) ?? "line";
  const named = new URLSearchParams(query);
  const role_id = named.get("role");
  const roi_id = named.get("roi");
  const named_recipe = named.get("recipe") ?? "";
  if (!role_id || !roi_id) return { screen: screen === "live" && named_recipe ? screen : "line", roi: null, recipe: named_recipe };
  const recipe_id = named_recipe || "default";
  return { screen, recipe: recipe_id, roi: { role_id, roi_id, recipe_id, model_key: named.get("key") || roi_id } };
}

/**
 * @param {ScreenName} screen
 * @param {RoiKey | null} roi
 * @returns {string}
 */
export function hashOf(screen, roi) {
  if (!roi) return "#/line";
  const named = new URLSearchParams({ recipe: roi.recipe_id, role: roi.role_id, roi: roi.roi_id });
  if (roi.model_key !== roi.roi_id) named.set("key", roi.model_key);
  return `#/${screen}?${named}`;
}

/** @param {string} recipe @returns {string} to the screen that judges all of its ROIs */
export function liveHashOf(recipe) {
  return `#/live?${new URLSearchParams({ recipe })}`;
}

/**
 * Where the name of a ROI is kept that nothing is stored of yet.
 * @param {RoiKey} roi
 */
export function nameKey({ recipe_id, roi_id }) {
  return `name of ${recipe_id}/${roi_id}`;
}

/** @param {RoiKey} roi @returns {string} one text for one ROI */
export function roiText({ recipe_id, role_id, roi_id, model_key }) {
  return [recipe_id.toLowerCase(), role_id, roi_id, model_key].map(encodeURIComponent).join("/");
}
