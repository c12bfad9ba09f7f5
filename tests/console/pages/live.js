// @ts-check
// Does on the real Live screen what a person does: a recorded folder plays a camera, over and over, until each of its pictures was
// judged once. Posts what became of them; what a busy machine leaves without a verdict is not asked again, as of a camera.
const MOST_LOOKS = 900;
const LOOK_EVERY_MS = 100;

/** @param {() => any} find @returns {Promise<any>} what it finds in the end */
async function until(find) {
  for (let looks = 0; looks < MOST_LOOKS; looks++) {
    const found = find();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
  }
  throw new Error(`not found: ${find}; the page says: ${document.body.innerText}`);
}
const all = (selector) => [...document.querySelectorAll(selector)];
const named = (selector, text) => all(selector).find((one) => one.textContent.trim().startsWith(text));

async function play() {
  (await until(() => all(".tile").length === 2 && named("button", "Folder that plays a camera"))).click();
  (await until(() => named("label", "Pictures a second"))).querySelector("input").value = "1";
  const chosen = new DataTransfer();
  for (const name of await (await fetch("/cases")).json()) chosen.items.add(new File([await (await fetch(`/files/${name}`)).blob()], name, { type: "image/png" }));
  const input = document.querySelector("input[type=file][accept]");
  input.files = chosen.files;
  input.dispatchEvent(new Event("change"));
  const judged = () => all(".part:not([data-word=none])").map(({ dataset: { name, word } }) => [name, word]);
  await until(() => new Set(judged().map(([name]) => name)).size === chosen.files.length);
  named("button", "Stop").click();
  all(".part:not([data-word=none])")[0].click();
  const wordsOf = (selector) => all(selector).map(({ dataset: { word } }) => word);
  await until(() => wordsOf(".live-roi").join() === wordsOf(".tile").join() && !wordsOf(".tile").includes("none")); // the picture is drawn, too
  return { parts: judged(), drawn: wordsOf(".live-roi") };
}

const found = await play().catch((problem) => ({ problem: String(problem) }));
await fetch("/results/found", { method: "POST", body: JSON.stringify(found) });
await fetch("/results/done", { method: "POST", body: "" });
