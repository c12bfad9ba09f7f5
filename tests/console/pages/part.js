// @ts-check
// Lets a test judge whole parts: `judge()` gives what judgePart says of the server's picture, `again()` what is believed later.
import { judgePart, partVerdict } from "/part.js";
import { openPicture } from "/pixels/picture.js";
import { RecipeGuard } from "/recipe-guard.js";

const guard = new RecipeGuard("line 1", () => undefined);
const told = ({ verdict, reason, rois }) => ({ verdict, reason, rois: rois.map(({ roi, ...found }) => [roi.name, found.verdict, found.reason]) });
let part = null;
window.judge = async () => {
  const picture = await openPicture(await (await fetch("/files/picture")).blob(), { name: "part 1" });
  part = await judgePart(guard, picture, { id: "part", isTest: true });
  return told(part);
};
window.again = () => told({ ...part, ...partVerdict(part, guard) });
window.placement = () => part.placement;
guard.start();
document.getElementById("state").textContent = "ready";
