// @ts-check
// Uses an editor by keys and numbers, and posts the ROI after each step and a pixel that it shows.
import { openPicture } from "/pixels/picture.js";
import "/pixels/roi-editor.js";

const post = (name, value) => fetch(`/results/${name}`, { method: "POST", body: JSON.stringify(value) });
const ready = (stage) => new Promise((resolve) => {
  const look = () => (stage.getAttribute("aria-busy") === "false" ? resolve(null) : setTimeout(look, 20));
  look();
});

const editor = document.createElement("roi-editor");
const rois = [];
editor.addEventListener("roi-change", ({ detail }) => rois.push(detail));
document.body.append(editor);
editor.picture = await openPicture(await (await fetch("/files/picture")).blob());
const stage = editor.querySelector(".roi-stage");
await ready(stage);
rois.push(editor.roi); // nobody set one

for (const options of [{ key: "ArrowLeft", shiftKey: true }, { key: "]" }, { key: "z", ctrlKey: true }, { key: "y", ctrlKey: true }]) {
  if (options.key === "ArrowLeft") editor.roi = { ...editor.roi, w: 100, h: 60 };
  stage.dispatchEvent(new KeyboardEvent("keydown", { ...options, bubbles: true, cancelable: true }));
}
const field = editor.querySelector("[data-field=h]");
field.value = "80";
field.dispatchEvent(new Event("change"));
await post("rois", rois);

const { view } = editor;
view.zoom(30);
await ready(stage);
await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
const middle = view.toPicture(stage.clientWidth / 2, stage.clientHeight / 2);
const shown = { x: Math.floor(middle.x), y: Math.floor(middle.y) };
const { x, y } = view.toStage({ x: shown.x + 0.5, y: shown.y + 0.5 });
const canvas = editor.querySelector("canvas");
const pixel = canvas.getContext("2d").getImageData(Math.floor(x * devicePixelRatio), Math.floor(y * devicePixelRatio), 1, 1).data;
await post("pixel", { column: shown.x, row: shown.y, rgb: [...pixel.slice(0, 3)] });
await post("done", null);
document.getElementById("state").textContent = "done";
