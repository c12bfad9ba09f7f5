"""Names of the arrays that pass between packages; their shapes are documented where they are made."""

import numpy as np
import numpy.typing as npt

Bgr = npt.NDArray[np.uint8]
"""An image, uint8 [H, W, 3], BGR."""
Pixels = npt.NDArray[np.float32]
"""Images as the network takes them, float32 [3, S, S] or [B, 3, S, S], RGB, normalised."""
Embeddings = npt.NDArray[np.float32]
"""Patch embeddings, float32 [N, D], row by row."""
DistanceMap = npt.NDArray[np.float32]
"""Distances to the nearest good patches, float32 [rows, columns] of the token grid, or [H, W] of the image."""
