"""The place of a moved part, in NumPy, float64: the same as backend/web/pixels/anchor.js, to 1e-6.

The template is searched in the picture by normalised cross-correlation (NCC), first small and at steps of angle and
place, then by Gauss-Newton steps at each larger size (inverse compositional: Baker and Matthews, IJCV 2004), with
brightness and contrast left free. docs/crops.md has every step.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from backend.commands.watch.crop import turn_of

Grey = npt.NDArray[np.float64]
COARSE_SIDE = 12  # pixels of the template's shorter side at which the search begins, at least
MOST_PIXELS = 40_000  # of the template at the finest size
N_CANDIDATES, N_STEPS = 8, 8


@dataclass(frozen=True)
class Anchor:
    """A rectangle of the reference picture: centre and whole size in pixels, and how far the part may move."""

    cx: float
    cy: float
    w: int
    h: int
    search_px: float
    search_deg: float


@dataclass(frozen=True)
class Pose:
    """A motion: a point P of the reference picture is at centre + (dx, dy) + rotation · (P - centre).

    Attributes:
        dx, dy: pixels.
        angle_deg: clockwise.
        score: NCC of the template there, -1 to 1.
    """

    dx: float
    dy: float
    angle_deg: float
    score: float


def grey(bgr: npt.NDArray[np.uint8]) -> Grey:
    """Grey values of uint8 [H, W, 3]."""
    blue, green, red = (bgr[..., k].astype(np.float64) for k in range(3))
    return (77 * red + 150 * green + 29 * blue) / 256


def halved(image: Grey) -> Grey:
    """Means of 2 by 2 pixels; an odd last row or column is left out."""
    rows, columns = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
    part = image[:rows, :columns]
    return ((part[::2, ::2] + part[::2, 1::2]) + (part[1::2, ::2] + part[1::2, 1::2])) / 4


class _Level:
    """Template and picture at one size: a pixel is `step` pixels of the picture wide."""

    def __init__(self, anchor: Anchor, template: Grey, picture: Grey, step: int, origin: tuple[int, int]) -> None:
        self.anchor, self.template, self.picture, self.step, self.origin = anchor, template, picture, step, origin
        rows, columns = template.shape
        self.u: Grey = (np.arange(columns, dtype=np.float64) + 0.5) * step - anchor.w / 2
        self.v: Grey = (np.arange(rows, dtype=np.float64) + 0.5) * step - anchor.h / 2
        self.radius = math.hypot(anchor.w, anchor.h) / 2
        centred = template - template.mean()
        self.unit = centred / max(math.sqrt((centred**2).sum()), 1e-12)
        inner = template[1:-1, 1:-1] - template[1:-1, 1:-1].mean()
        self.inner_norm = max(math.sqrt((inner**2).sum()), 1e-12)
        self.inner_unit = inner / self.inner_norm
        across = (template[1:-1, 2:] - template[1:-1, :-2]) / (2 * step)
        down = (template[2:, 1:-1] - template[:-2, 1:-1]) / (2 * step)
        turned = (down * self.u[None, 1:-1] - across * self.v[1:-1, None]) / self.radius
        steepest = [slope - slope.mean() for slope in (across, down, turned)]
        steepest = [slope - (slope * self.inner_unit).sum() * self.inner_unit for slope in steepest]
        self.steepest = np.stack([slope.ravel() for slope in steepest])
        self.hessian = self.steepest @ self.steepest.T

    def at(self, u: Grey, v: Grey, dx: float, dy: float, angle_deg: float) -> Grey:
        """The picture at points of the template, bilinear; beyond its edge, the outermost pixels are repeated."""
        cos, sin = turn_of(angle_deg)
        x = self.anchor.cx + dx + u[None] * cos - v[:, None] * sin
        y = self.anchor.cy + dy + u[None] * sin + v[:, None] * cos
        x, y = ((value - origin) / self.step - 0.5 for value, origin in zip((x, y), self.origin, strict=True))
        rows, columns = self.picture.shape
        x, y = np.clip(x, 0, columns - 1), np.clip(y, 0, rows - 1)
        left, above = np.floor(x).astype(int), np.floor(y).astype(int)
        right, below = np.minimum(left + 1, columns - 1), np.minimum(above + 1, rows - 1)
        fx, fy = x - left, y - above
        lines = [
            self.picture[row, left] + fx * (self.picture[row, right] - self.picture[row, left])
            for row in (above, below)
        ]
        return np.asarray(lines[0] + fy * (lines[1] - lines[0]), np.float64)

    def score(self, pose: Pose) -> float:
        seen = self.at(self.u, self.v, pose.dx, pose.dy, pose.angle_deg)
        centred = seen - seen.mean()
        norm = math.sqrt((centred**2).sum())
        return float((centred * self.unit).sum() / norm) if norm > 1e-9 else 0.0

    def candidates(self) -> list[Pose]:
        """The best places of a search at whole pixels of this size, each at its best angle nearby."""
        anchor, step = self.anchor, self.step
        reach = math.ceil(anchor.search_px / step)
        turn = math.degrees(step / self.radius)
        turns = math.ceil(anchor.search_deg / turn)
        rows, columns = self.template.shape
        u: Grey = (np.arange(-reach, columns + reach, dtype=np.float64) + 0.5) * step - anchor.w / 2
        v: Grey = (np.arange(-reach, rows + reach, dtype=np.float64) + 0.5) * step - anchor.h / 2
        angles = [k * anchor.search_deg / turns if turns else 0.0 for k in range(-turns, turns + 1)]
        scores = np.empty((len(angles), 2 * reach + 1, 2 * reach + 1))
        for k, angle in enumerate(angles):
            windows = sliding_window_view(self.at(u, v, 0, 0, angle), (rows, columns))
            spread = (windows**2).sum((2, 3)) - windows.sum((2, 3)) ** 2 / self.template.size
            found = np.einsum("abij,ij->ab", windows, self.unit)
            scores[k] = np.where(spread > 1e-9, found / np.sqrt(np.maximum(spread, 1e-9)), 0)
        near = apart_px(anchor)
        beside = max(1, math.floor(near / step))
        turned = max(1, math.floor(near / step * turns * turn / anchor.search_deg)) if turns else 1
        poses = []
        for _ in range(N_CANDIDATES):
            k, q, p = map(int, np.unravel_index(int(scores.argmax()), scores.shape))
            if scores[k, q, p] == -np.inf:
                break
            cos, sin = turn_of(angles[k])
            along, across = (p - reach) * step, (q - reach) * step
            pose = (along * cos - across * sin, along * sin + across * cos, angles[k], float(scores[k, q, p]))
            poses.append(Pose(*pose))
            around = zip((k, q, p), (turned, beside, beside), strict=True)
            scores[tuple(slice(max(at - reached, 0), at + reached + 1) for at, reached in around)] = -np.inf
        return poses

    def refined(self, pose: Pose) -> Pose:
        """After Gauss-Newton steps at this size."""
        dx, dy, angle = pose.dx, pose.dy, pose.angle_deg
        for _ in range(N_STEPS):
            seen = self.at(self.u[1:-1], self.v[1:-1], dx, dy, angle)
            centred = seen - seen.mean()
            norm = math.sqrt((centred**2).sum())
            if norm < 1e-9 or np.linalg.det(self.hessian) < 1e-9:
                break
            residual = (centred / norm - self.inner_unit) * self.inner_norm
            along, across, turned = np.linalg.solve(self.hessian, self.steepest @ residual.ravel())
            angle -= math.degrees(turned / self.radius)
            cos, sin = turn_of(angle)
            dx -= along * cos - across * sin
            dy -= along * sin + across * cos
        moved = Pose(dx, dy, angle, 0)
        return Pose(dx, dy, angle, self.score(moved))


def _halvings(anchor: Anchor) -> int:
    """How many times the picture is halved before the search."""
    n = 0
    while min(anchor.w, anchor.h) / 2 ** (n + 1) >= COARSE_SIDE:
        n += 1
    return n


def search_box(anchor: Anchor, width: int, height: int) -> tuple[int, int, int, int]:
    """The part of a picture in which the anchor may be: left, top, right, bottom, in whole pixels.

    Args:
        anchor: the searched rectangle, and how far it may have moved.
        width, height: of the picture.
    """
    block = 2 ** _halvings(anchor)
    reach = math.hypot(anchor.w, anchor.h) / 2 + anchor.search_px * math.sqrt(2) + 2 * block
    left, top = (max(0, math.floor((centre - reach) / block) * block) for centre in (anchor.cx, anchor.cy))
    right, bottom = (min(size, math.ceil(centre + reach)) for size, centre in ((width, anchor.cx), (height, anchor.cy)))
    return left, top, right, bottom


def _levels(anchor: Anchor, template: Grey, picture: Grey) -> list[_Level]:
    """From the smallest size to the finest."""
    coarsest = _halvings(anchor)
    left, top, right, bottom = search_box(anchor, picture.shape[1], picture.shape[0])
    part = picture[top:bottom, left:right]
    levels = []
    for level in range(coarsest + 1):
        levels.append(_Level(anchor, template, part, 2**level, (left, top)))
        template, part = halved(template), halved(part)
    finest = next(k for k, level in enumerate(levels) if level.template.size <= MOST_PIXELS or k == coarsest)
    return levels[finest:][::-1]


def apart_px(anchor: Anchor) -> float:
    """The smallest motion of the template's corners between two different poses."""
    return 0.1 * min(anchor.w, anchor.h)


def _distinct(poses: list[Pose], anchor: Anchor, n: int) -> list[Pose]:
    """The best poses; only the best one for each place."""
    kept: list[Pose] = []
    near = apart_px(anchor)
    for pose in sorted(poses, key=lambda pose: -pose.score):
        radius = math.hypot(anchor.w, anchor.h) / 2
        apart = (
            math.hypot(pose.dx - other.dx, pose.dy - other.dy)
            + math.radians(abs(pose.angle_deg - other.angle_deg)) * radius
            for other in kept
        )
        if all(distance > near for distance in apart):
            kept.append(pose)
    return kept[:n]


def locate(anchor: Anchor, template: Grey, picture: Grey) -> tuple[Pose, float]:
    """The best pose, and the score of the next best one elsewhere (-1 where there is none).

    Args:
        anchor: the place of the template.
        template: grey [h, w].
        picture: grey [H, W].
    """
    levels = _levels(anchor, template, picture)
    poses = levels[0].candidates()
    for number, level in enumerate(levels):
        poses = _distinct([level.refined(pose) for pose in poses], anchor, max(2, N_CANDIDATES >> (number + 1)))
    return poses[0], poses[1].score if len(poses) > 1 else -1.0
