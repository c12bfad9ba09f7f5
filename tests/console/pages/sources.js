// @ts-check
// Lets a test use the sources of Live: a watched folder, in a folder of the page's own, and the camera.
import { Camera } from "/sources/camera.js";
import { keepFolder } from "/sources/judged.js";
import { WatchedFolder } from "/sources/watched.js";

const root = await navigator.storage.getDirectory();
const abort = new AbortController();
let folder = null;
let frame = null;

/** @param {string} path @param {FileSystemDirectoryHandle} [from] */
async function parent(path, from = root) {
  const [first, ...rest] = path.split("/");
  return rest.length ? parent(rest.join("/"), await from.getDirectoryHandle(first, { create: true })) : from;
}

window.write = async (path, text) => {
  const file = await (await parent(path)).getFileHandle(path.split("/").pop(), { create: true });
  const stream = await file.createWritable();
  await stream.write(text);
  await stream.close();
};
window.erase = async (path) => (await parent(path)).removeEntry(path.split("/").pop());
window.watch = async (name) => {
  folder?.close();
  const handle = await root.getDirectoryHandle(name, { create: true });
  folder = new WatchedFolder(handle, (await keepFolder("recipe", handle, crypto.randomUUID())).id);
};
window.next = async () => {
  frame = await folder.next(abort.signal);
  return [frame.name, await frame.blob.text()];
};
window.judged = () => folder.done(frame);
window.skip = () => folder.skip();
window.backlog = () => folder.backlog;
window.frames = async (count) => {
  const camera = await Camera.open("", null);
  const names = [];
  for (let number = 0; number < count; number++) {
    const { name, blob } = await camera.next(abort.signal);
    names.push(name);
    await fetch(`/results/frame-${number}`, { method: "POST", body: blob });
  }
  const { dropped, problem } = camera;
  camera.track.stop();
  const ended = camera.problem;
  camera.close();
  return { names, dropped, problem, ended, lit: camera.track.readyState };
};
document.getElementById("state").textContent = "ready";
