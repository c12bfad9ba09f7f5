"""Screenshots beside those that were looked at: alike but for what another browser or another machine may change.

Both are made small and soft, and compared by the mean difference in windows of some letters, where they match best
within a pixel. So a score that ends in other digits passes, and a panel that is gone, a text over another or a verdict
in a wrong colour does not: `test_looks` breaks each of them, and what may change, and holds both against `MOST`.

What nobody notices in a picture of this size: a changed word, which `wording` finds, and a thin outline or bold letters
that are lost. On a calm machine the same page gives the same picture; a pixel lower differs by 15 grey levels, a button
without its outline by 3 to 14.
"""

import io
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

FOLDER = Path(__file__).parent / "looks"
"""The small pictures that were looked at."""
MOST = 18.0
"""Grey levels by which a window may differ; `test_looks` has what stays below it, and what does not."""
_WIDTH = 560
_COLOURS = 200
_SIGMA = 1.2
_WINDOW = 15

Pixels = npt.NDArray[np.uint8]


def small(png: bytes) -> Image.Image:
    """A screenshot as it is compared: at most 560 pixels wide."""
    whole = Image.open(io.BytesIO(png)).convert("RGB")
    scale = min(1, _WIDTH / whole.width)
    return whole.resize((round(whole.width * scale), round(whole.height * scale)), Image.Resampling.BOX)


def renew(name: str, png: bytes) -> None:
    """Keep a screenshot as the one to compare with."""
    FOLDER.mkdir(exist_ok=True)
    few = small(png).quantize(_COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    few.save(FOLDER / f"{name}.png", optimize=True)


def difference(png: bytes, looked_at: Image.Image) -> npt.NDArray[np.float32]:
    """How much each window of a screenshot differs, in grey levels: float32 [H, W].

    Raises:
        AssertionError: it has another size.
    """
    actual = small(png)
    assert actual.size == looked_at.size, f"{actual.size[0]} × {actual.size[1]} pixels instead of {looked_at.size}"
    one, other = (
        cv2.GaussianBlur(np.asarray(picture.convert("RGB"), np.float32), (0, 0), _SIGMA)
        for picture in (actual, looked_at)
    )
    whole = np.pad(other, ((1, 1), (1, 1), (0, 0)), "edge")
    height, width = one.shape[:2]
    moved = [whole[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return np.min([cv2.blur(np.abs(one - place).max(axis=2), (_WINDOW, _WINDOW)) for place in moved], axis=0)


def check(name: str, png: bytes, folder: Path) -> None:
    """Compare a screenshot with the one that was looked at.

    Args:
        name: of the look.
        png: the screenshot.
        folder: for the pictures of a mismatch.

    Raises:
        AssertionError: they differ, or there is none; the message names the pictures.
    """
    actual = folder / f"{name}.png"
    actual.write_bytes(png)
    kept = FOLDER / f"{name}.png"
    assert kept.exists(), f"nobody has looked at {actual} yet: run with --renew-looks, and look"
    looked_at = Image.open(kept)
    found = difference(png, looked_at)
    if found.max() <= MOST:
        return
    shown = folder / f"{name}-difference.png"
    heat = cv2.applyColorMap(np.clip(found * 6, 0, 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    sides = [np.asarray(picture.convert("RGB"))[..., ::-1] for picture in (looked_at, small(png))]
    cv2.imwrite(str(shown), np.concatenate([*sides, heat], axis=1))
    y, x = np.unravel_index(int(found.argmax()), found.shape)
    raise AssertionError(
        f"{name} differs by {found.max():.0f} grey levels around ({x}, {y}) of {looked_at.size}, {MOST:.0f} are "
        f"allowed: see {actual} and {shown} (what it was, what it is, the difference). If it is meant, renew it"
    )
