// @ts-check
/** The texts of Live, Review and the desktop GUI's layouts: a script of theirs that imports this one finds them in the catalogue. */
import { addTexts, language } from "./texts.js";

/** @type {Record<import("./texts.js").Language, () => Promise<{default: import("./texts.js").LaterCatalogue}>>} */
const LOADERS = { en: () => import("./texts/later/en.js"), es: () => import("./texts/later/es.js") };

addTexts((await LOADERS[language]()).default);
