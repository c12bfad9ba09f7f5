"""The same network with a rotated residual stream, so that no channel is much larger than the others.

A few channels of DINOv2's stream are many times larger than the rest, and rounding to 8 bits follows the largest. Every
reader and writer of the stream is a matrix product, and a norm comes before each reader. So a rotation Q of the stream
can be put into the weights: writers become ``Q W``, readers ``W Qᵀ``, and the network gives the same tokens. Q keeps
the direction (1, 1, …, 1): the mean and the variance of a token, which norms use, stay as they are. After the rotation
every channel is a sum of all channels with random signs, and they are about equally large.

The idea is that of QuaRot (Ashkboos et al., 2024, arXiv:2404.00456), for a norm that subtracts the mean.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

from backend.common.config import DEFAULT_MODEL_BLOCKS

BACK = "norm.back"
"""Of rotated weights: float32 [384, 384], after the final norm."""

Tensors = dict[str, npt.NDArray[np.float32]]
Matrix = npt.NDArray[np.float64]

_HEADS = 6
_PALEY = 11  # a prime of the form 4 k + 3
_SEED = 0


@cache
def rotation(dim: int) -> Matrix:
    """An orthogonal matrix with entries of about the same size, which keeps the direction (1, 1, …, 1).

    ``Hᵀ S H``, with a Hadamard matrix whose first row is constant, and random signs S.

    Args:
        dim: 12 or 1 times a power of two.

    Returns:
        float64 [dim, dim].
    """
    hadamard = _hadamard(dim) / np.sqrt(dim)
    signs = np.random.default_rng(_SEED).choice([-1.0, 1.0], dim)
    signs[0] = 1
    return np.asarray(hadamard.T @ (signs[:, None] * hadamard))


def rotated(weights: Tensors) -> Tensors:
    """The weights of the same network, with a rotated stream.

    Scales and shifts of the norms before products are in these products, and LayerScale, too. Values of the attention
    are rotated within each head.

    Args:
        weights: float32 tensors under timm's names for ``vit_small_patch14_dinov2``.

    Returns:
        float32 tensors under the same names, without those of ``norm1``, ``norm2``, ``ls1`` and ``ls2``. `BACK`
        replaces ``norm.weight``: it rotates back, and scales.
    """
    exact = {name: tensor.astype(np.float64) for name, tensor in weights.items()}
    stream = rotation(exact["norm.weight"].size)
    found = {
        "patch_embed.proj.weight": np.tensordot(stream, exact["patch_embed.proj.weight"], 1),
        "patch_embed.proj.bias": stream @ exact["patch_embed.proj.bias"],
        "pos_embed": exact["pos_embed"] @ stream.T,
        "cls_token": exact["cls_token"] @ stream.T,
        BACK: exact["norm.weight"][:, None] * stream.T,
        "norm.bias": exact["norm.bias"],
    }
    values = np.kron(np.eye(_HEADS), rotation(len(stream) // _HEADS))
    for index in range(DEFAULT_MODEL_BLOCKS):
        block = f"blocks.{index}."
        for norm, reader in (("norm1", "attn.qkv"), ("norm2", "mlp.fc1")):
            weight, bias = exact[f"{block}{reader}.weight"], exact[f"{block}{reader}.bias"]
            found[f"{block}{reader}.weight"] = weight * exact[f"{block}{norm}.weight"] @ stream.T
            found[f"{block}{reader}.bias"] = bias + weight @ exact[f"{block}{norm}.bias"]
        for scale, writer in (("ls1", "attn.proj"), ("ls2", "mlp.fc2")):
            by = stream * exact[f"{block}{scale}.gamma"]
            found[f"{block}{writer}.weight"] = by @ exact[f"{block}{writer}.weight"]
            found[f"{block}{writer}.bias"] = by @ exact[f"{block}{writer}.bias"]
        own = slice(2 * len(stream), None)  # queries, keys, values
        for part in ("weight", "bias"):
            found[f"{block}attn.qkv.{part}"][own] = values @ found[f"{block}attn.qkv.{part}"][own]
        found[f"{block}attn.proj.weight"] = found[f"{block}attn.proj.weight"] @ values.T
    return {name: tensor.astype(np.float32) for name, tensor in found.items()}


def _hadamard(n: int) -> Matrix:
    """Entries of 1 and -1, orthogonal rows, the first row all ones: Sylvester's, on Paley's of order 12."""
    if n == 1:
        return np.ones((1, 1))
    if n == _PALEY + 1:
        numbers = np.arange(_PALEY)
        residues = np.isin(numbers, numbers[1:] ** 2 % _PALEY)
        differences = (numbers[:, None] - numbers) % _PALEY
        matrix = np.ones((n, n))
        matrix[1:, 0] = -1
        matrix[1:, 1:] = np.where(differences == 0, 1, np.where(residues[differences], 1, -1))
        return matrix
    if n % 2:
        raise ValueError(f"no Hadamard matrix of order {n} is known here")
    return np.kron(np.array([[1.0, 1.0], [1.0, -1.0]]), _hadamard(n // 2)).astype(np.float64)
