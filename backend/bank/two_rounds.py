"""Round one of a selection in two rounds, for embeddings that do not fit into the memory of all shards.

Each shard reads its embeddings in pieces, and keeps some of each by greedy k-center. Round two is `select` among all
that were kept. The bank is then not exactly that of one round. Every embedding is within r1 of a kept embedding of its
piece, and every kept embedding is within r2 of a pick. So every embedding is within r1 + r2 of a pick (triangle
inequality).

Malkomes et al., *Fast Distributed k-Center Clustering with Outliers on Massive Data*, NIPS 2015.
"""

from typing import NamedTuple

import numpy as np

from backend.bank.k_center_shards import Rows, Shard
from backend.common.arrays import Embeddings
from backend.patchcore import distance_of_cosine, k_center_greedy

# Embeddings that round one keeps for each that round two selects. ``docs/scale.md`` has the measurements.
KEPT_FOR_EACH = 4


class Pieces(NamedTuple):
    """How round one reads the images of a fit, and how many of their embeddings it keeps.

    Attributes:
        most_images: images of a piece at most, at least one.
        n_select: how many embeddings round two selects.
        n_images: of the fit.
        per_image: embeddings of an image.
    """

    most_images: int
    n_select: int
    n_images: int
    per_image: int

    def count(self, n_images: int) -> int:
        """The number of pieces of a shard of so many images."""
        return -(-n_images // self.most_images)

    def images_of(self, piece: int, n_images: int) -> slice:
        """The images of a piece, spread over the shard, because neighbours often look alike.

        Args:
            piece: its number, from 0.
            n_images: of the shard.
        """
        return slice(piece, n_images, self.count(n_images))

    def n_kept(self, piece: int, n_images: int) -> int:
        """How many embeddings are kept of a piece: its share of `KEPT_FOR_EACH` times the selection, rounded up.

        Args:
            piece, n_images: see `images_of`.
        """
        own = len(range(n_images)[self.images_of(piece, n_images)])
        return min(own * self.per_image, -(-KEPT_FOR_EACH * self.n_select * own // self.n_images))

    def n_kept_of(self, n_images: int) -> int:
        """How many embeddings are kept of a shard of so many images."""
        return sum(self.n_kept(piece, n_images) for piece in range(self.count(n_images)))


class KeptShard:
    """The embeddings of one block in one shard. Round one keeps some of them, and round two selects among these.

    All that it knows follows from its embeddings, so a shard that was restarted keeps the same of them.

    Args:
        embeddings: float32 [n * per_image, D], L2-normalised; they are read piece by piece and may be on a disk.
        first_row: row of the first of them among all embeddings.
        pieces: of the fit.
    """

    def __init__(self, embeddings: Embeddings, first_row: int, pieces: Pieces) -> None:
        self._embeddings, self._first_row, self._pieces = embeddings, first_row, pieces
        self._n_images = len(embeddings) // pieces.per_image
        self._kept: dict[int, tuple[Rows, float]] = {}
        self._shard: Shard | None = None

    def keep(self, piece: int) -> float:
        """Keep some embeddings of a piece, unless this is done.

        Args:
            piece: its number, from 0.

        Returns:
            The distance within which they cover the piece, 0..2.
        """
        if piece not in self._kept:
            self._kept[piece] = self._kept_of(piece)
        return self._kept[piece][1]

    def shard(self) -> Shard:
        """What was kept, in memory, as the shard of round two."""
        if self._shard is None:
            for piece in range(self._pieces.count(self._n_images)):
                self.keep(piece)
            rows = np.sort(np.concatenate([rows for rows, _ in self._kept.values()]))
            self._shard = Shard(self._embeddings[rows], rows + self._first_row)
        return self._shard

    def _kept_of(self, piece: int) -> tuple[Rows, float]:
        """Rows within the shard that are kept of a piece, and the distance within which they cover it."""
        which, per_image = self._pieces.images_of(piece, self._n_images), self._pieces.per_image
        rows = np.arange(len(self._embeddings)).reshape(-1, per_image)[which].ravel()
        n_kept = self._pieces.n_kept(piece, self._n_images)
        if n_kept == len(rows):
            return rows, 0.0
        own = np.array(self._embeddings.reshape(self._n_images, per_image, -1)[which]).reshape(len(rows), -1)
        picks = k_center_greedy(own, n_kept + 1)  # the distance of one more pick is the radius of those before it
        return rows[picks[:-1]], float(distance_of_cosine((own[picks[:-1]] @ own[picks[-1]]).max()))
