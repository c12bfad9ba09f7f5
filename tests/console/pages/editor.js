// @ts-check
// Shows the picture /files/picture in an editor, and in text what the editor reports.
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
  const picture = await openPicture(await (await fetch("/files/picture")).blob());
  editor.picture = picture;
  const given = new URLSearchParams(location.search).get("roi");
  if (given) editor.roi = JSON.parse(given);
  say("roi", JSON.stringify(editor.roi));
  say("state", "ready");
} catch (error) {
  say("state", String(error));
}
