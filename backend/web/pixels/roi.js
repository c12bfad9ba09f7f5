// @ts-check
/**
 * What a ROI is, in numbers.
 *
 * Coordinates are continuous and in pixels of the picture: pixel (column j, row i) covers [j, j+1) × [i, i+1), so its centre
 * is at (j + 0.5, i + 0.5), and a whole picture has its centre at (width / 2, height / 2). The service's shapes count the
 * same way. Angles are in degrees, clockwise on the screen.
 *
 * @typedef {{kind: "rect"|"circle"|"annulus", cx: number, cy: number, w: number, h: number, r: number, r_inner: number,
 *   angle_deg: number, crop?: "gui"}} Roi  w and h count for a rect, r for a circle and an annulus, r_inner for an annulus;
 *   crop: the pixels are those of the desktop GUI (gui-crop.js), and not the console's
 * @typedef {{kind: "circle", cx: number, cy: number, r: number}
 *   | {kind: "annulus", cx: number, cy: number, r: number, r_inner: number}} Shape  in pixels of the crop
 */


const RADIANS = Math.PI / 180;
// Taylor coefficients, highest power first: 1e-17 at 45 degrees.
const SINE = [-1 / 1307674368000, 1 / 6227020800, -1 / 39916800, 1 / 362880, -1 / 5040, 1 / 120, -1 / 6, 1];
const COSINE = [1 / 20922789888000, -1 / 87178291200, 1 / 479001600, -1 / 3628800, 1 / 40320, -1 / 720, 1 / 24, -1 / 2, 1];

/**
 * Cosine and sine of an angle. `Math.cos` differs in its last bit from browser to browser; sums and products do not, and
 * multiples of 90° are exact.
 * @param {number} degrees
 * @returns {{cos: number, sin: number}}
 */
export function turnOf(degrees) {
  const within = degrees % 360;
  const quarters = Math.floor(within / 90 + 0.5);
  const x = (within - 90 * quarters) * RADIANS;
  const squared = x * x;
  const sin = x * SINE.reduce((sum, coefficient) => sum * squared + coefficient, 0);
  const cos = COSINE.reduce((sum, coefficient) => sum * squared + coefficient, 0);
  switch (((quarters % 4) + 4) % 4) {
    case 0: return { cos, sin };
    case 1: return { cos: 0 - sin, sin: cos };
    case 2: return { cos: 0 - cos, sin: 0 - sin };
    default: return { cos: sin, sin: 0 - cos };
  }
}

/**
 * Size of the crop: whole pixels, at least one. Circle and annulus are cut as the square around them.
 * @param {Roi} roi
 * @returns {{width: number, height: number}}
 */
export function cropSize(roi) {
  const [w, h] = roi.kind === "rect" ? [roi.w, roi.h] : [2 * roi.r, 2 * roi.r];
  return { width: Math.max(1, Math.floor(w + 0.5)), height: Math.max(1, Math.floor(h + 0.5)) };
}

/**
 * The mask that the service applies to the crop: the field `shape` of its API.
 * @param {Roi} roi
 * @param {{width: number, height: number}} [crop] its size, where it is the desktop GUI's, which borders make smaller
 * @returns {Shape|null} null for a rect, of which every pixel counts
 */
export function shapeOf(roi, crop = cropSize(roi)) {
  if (roi.crop === "gui") return guiShape(roi, crop);
  if (roi.kind === "rect") return null;
  const { width, height } = cropSize(roi);
  const circle = { cx: width / 2, cy: height / 2, r: roi.r };
  return roi.kind === "circle" ? { kind: "circle", ...circle } : { kind: "annulus", ...circle, r_inner: roi.r_inner };
}

/**
 * How far a ROI reaches beyond the picture, in pixels; 0 where it lies inside. Of a rect the centres of the crop's
 * outermost pixels count, of a circle and an annulus the circle: the corners around it are masked.
 * @param {Roi} roi
 * @param {{width: number, height: number}} picture
 * @returns {number}
 */
export function beyond(roi, picture) {
  let [x, y] = [roi.r - 0.5, roi.r - 0.5];
  if (roi.kind === "rect") {
    const { cos, sin } = turnOf(roi.angle_deg);
    const { width, height } = cropSize(roi);
    const [u, v] = [(width - 1) / 2, (height - 1) / 2];
    [x, y] = [u * Math.abs(cos) + v * Math.abs(sin), u * Math.abs(sin) + v * Math.abs(cos)];
  }
  return Math.max(0, x - roi.cx, y - roi.cy, roi.cx + x - picture.width, roi.cy + y - picture.height);
}

/**
 * Whether the crop is the whole picture, pixel for pixel.
 * @param {Roi} roi
 * @param {{width: number, height: number}} picture
 */
export function isWhole(roi, picture) {
  const { width, height } = cropSize(roi);
  return (
    roi.angle_deg % 360 === 0 &&
    width === picture.width &&
    height === picture.height &&
    roi.cx === width / 2 &&
    roi.cy === height / 2
  );
}

/**
 * The same place, cut in another way.
 * @param {Roi} roi
 * @param {Roi["crop"]} crop
 * @returns {Roi}
 */
export function cutAs({ crop: _, ...roi }, crop) {
  return crop ? { ...roi, crop } : roi;
}

/**
 * The ROI nearest to this one whose crop takes the picture's pixels as they are, where the angle allows it: sizes are whole
 * pixels, and at multiples of 90° the edges lie between pixels. (Half a pixel beside, every pixel would be a mean of four.)
 * @param {Roi} roi
 * @returns {Roi}
 */
export function snapped(roi) {
  const { width, height } = cropSize(roi);
  const sized = roi.kind === "rect" ? { ...roi, w: width, h: height } : roi;
  if (roi.angle_deg % 90 !== 0) return sized;
  const [x, y] = roi.angle_deg % 180 === 0 ? [width / 2, height / 2] : [height / 2, width / 2];
  return { ...sized, cx: Math.floor(roi.cx - x + 0.5) + x, cy: Math.floor(roi.cy - y + 0.5) + y };
}

/** Width and height of the desktop GUI's crop, before they are rounded. @param {Roi} roi */
export function guiSidesOf(roi) {
  if (roi.kind === "rect") return { width: Math.max(1, roi.w), height: Math.max(1, roi.h) };
  const side = 2 * Math.max(roi.r, 0.5);
  return { width: side, height: side };
}

/**
 * The mask that the GUI sends with a crop.
 * @param {Roi} roi
 * @param {{width: number, height: number}} crop  its size in pixels
 * @returns {Shape|null}  null for a rect, of which every pixel counts
 */
function guiShape(roi, { width, height }) {
  if (roi.kind === "rect") return null;
  const centre = { cx: width / 2, cy: height / 2 };
  if (roi.kind === "circle") return { kind: "circle", ...centre, r: Math.min(width, height) / 2 };
  const sides = guiSidesOf(roi);
  const scale = Math.min(width / sides.width, height / sides.height);
  return { kind: "annulus", ...centre, r: sides.width / 2 * scale, r_inner: Math.min(Math.max(roi.r_inner, 0), roi.r) * scale };
}
