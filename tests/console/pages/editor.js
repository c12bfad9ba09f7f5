// @ts-check
// Shows a picture of the server in an editor, and in text what the editor reports.
import { openPicture } from "/pixels/picture.js";
import "/pixels/roi-editor.js";

const editor = document.querySelector("roi-editor");
const say = (id, text) => {
  document.getElementById(id).textContent = text;
};
let changes = 0;
editor.addEventListener("roi-change", ({ detail }) => {
  say("changes", String(++changes));
  say("roi", JSON.stringify(detail));
});
editor.addEventListener("scale-measured", ({ detail }) => say("scale", JSON.stringify(detail)));
try {
  const asked = new URLSearchParams(location.search);
  editor.picture = await openPicture(await (await fetch(`/files/${asked.get("picture")}`)).blob());
  editor.roi = JSON.parse(asked.get("roi"));
  say("roi", JSON.stringify(editor.roi));
  say("state", "ready");
} catch (error) {
  say("state", String(error));
}
