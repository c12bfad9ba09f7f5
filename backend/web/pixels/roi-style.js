// @ts-check
/** The style sheet of the ROI editor, once for the page. */
export function linkStyle() {
  const href = new URL("./roi-editor.css", import.meta.url).href;
  if ([...document.styleSheets].some((sheet) => sheet.href === href) || document.querySelector(`link[href="${href}"]`)) return;
  const link = document.createElement("link");
  [link.rel, link.href] = ["stylesheet", href];
  document.head.append(link);
}
