"""Matrix products in 8 bits: which of the network's, how they are rounded, and whether this CPU is fast at them.

The weights are rotated first (`rotation`). A token is divided by its own largest magnitude, so that its numbers are
shares of it in -1..1, and rounded to 127ths; a row of a weight matrix likewise. Products of such numbers are sums of
integers, so they hardly depend on who computes them: kernels for VNNI instructions, or those for float32 where the CPU
has no exact ones for 8 bits.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from backend.network.openvino_library import op, ov

# Of the network's 12 blocks, from 1. What the first ones lose in 8 bits, all others carry on: docs/benchmarks.md has
# the agreement of each choice. Memory banks record "int8" and no choice, so another choice needs another name.
FIRST_BLOCK = 5
LEVELS = 127
# GELU's smallest value is -0.16997, at -0.75179.
GELU_FLOOR = np.float32(0.17)
ADVICE = (
    "PRECISION=int8 is no faster than float32 on this CPU, which has no instructions for exact 8-bit products (VNNI):"
    " PRECISION=float32 is recommended"
)
# Standard deviations above its mean that the input of a GELU is taken to reach, and the least that is told apart.
_REACH, _LEAST_REACH = 4, 0.2
_LEAST = float(np.finfo(np.float32).tiny)  # a token of zeros is divided by it
_TOKENS, _CHANNELS = 64, 1536  # of the probe: as many channels as the longest sums of the network have


def quantise_rows(weight: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Round each row of a weight matrix to 127ths of its largest magnitude, half to even.

    Args:
        weight: float32 [outputs, inputs], not all zero in any row.

    Returns:
        int8 [outputs, inputs] in -127..127, and float32 [outputs, 1]: what one level of a row is.
    """
    step = np.abs(weight).max(axis=1, keepdims=True) / np.float32(LEVELS)
    return np.rint(weight / step).astype(np.int8), step


@dataclass(frozen=True)
class Gelu:
    """Tokens come from a GELU of ``normed @ weight.T + bias``: float32 [D, inputs] and [D].

    The normed tokens have a mean of 0 and a variance of 1.
    """

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]


def migrated_scales(gelu: Gelu, weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """By what channels are divided before they are rounded, so that a few large ones do not decide for all.

    The weights that they meet are multiplied by it, which changes nothing but the rounding: SmoothQuant (Xiao et al.,
    2023, arXiv:2211.10438) with its strength of one half. How far a channel reaches is told by the product before the
    GELU, so that no images are needed.

    Args:
        gelu: what the tokens come from.
        weight: float32 [O, D], of the product that the tokens are in.

    Returns:
        float32 [D], with a geometric mean of 1.
    """
    reach = np.maximum(gelu.bias + _REACH * np.linalg.norm(gelu.weight, axis=1), _LEAST_REACH)
    migrated = np.sqrt(reach / np.abs(weight).max(axis=0))
    return np.asarray(migrated / np.exp(np.log(migrated).mean()), np.float32)


class Int8Products:
    """Products of rounded tokens and rounded weights, as OpenVINO's operations.

    Args:
        exact_kernels: what `has_exact_kernels` says; False computes the same products in float32.
        attention: the type of the attention between them; None is float32.
    """

    def __init__(self, exact_kernels: bool, attention: ov.Type | None = None) -> None:
        self._exact_kernels = exact_kernels
        self.attention = attention

    def of(self, tokens: ov.Output, *matrices: npt.NDArray[np.float32], source: Gelu | None = None) -> list[ov.Output]:
        """Round the tokens once, and multiply them with each of the rounded matrices.

        Args:
            tokens: [1, T, D].
            matrices: float32 [O, D] each.
            source: the GELU that the tokens come from, if they do.

        Returns:
            Nearly ``tokens @ matrix.T``, float32 [1, T, O], for each matrix.
        """
        floor, lowest, n_levels = None, -1, 2 * LEVELS + 1
        if tokens.get_element_type() != ov.Type.f32:
            tokens = op.convert(tokens, np.float32)
        if source is not None:  # hardly anything is negative: all 256 levels for 0 and above
            scales = migrated_scales(source, np.concatenate(matrices))
            floor, lowest, n_levels = GELU_FLOOR / scales, 0, 256
            tokens = op.add(op.multiply(tokens, op.constant(1 / scales)), op.constant(floor))
            matrices = tuple(matrix * scales for matrix in matrices)
        largest = op.maximum(op.reduce_max(op.abs(tokens), op.constant(np.array([-1])), True), _number(_LEAST))
        # A constant range for all tokens: OpenVINO has fast kernels for such ones only.
        ends = _number(lowest), _number(1)
        shares = op.fake_quantize(op.divide(tokens, largest), *ends, *ends, n_levels)
        products = []
        for matrix in matrices:
            rows, step = quantise_rows(matrix)
            levels = op.multiply(op.convert(op.constant(rows), np.float32), op.constant(step))
            if not self._exact_kernels:
                levels = op.constant(rows * step)
            product = op.multiply(op.matmul(shares, levels, False, True), largest)
            if floor is not None:
                product = op.subtract(product, op.constant((rows * step) @ floor))
            products.append(product)
        return products


@cache
def has_exact_kernels() -> bool:
    """Whether 8-bit products are exact on this CPU, as its VNNI instructions make them.

    Without them pairs of products are added in 16 bits, and large sums stop at the largest number; and it takes as long
    as in float32. No list of instructions is asked, but a product of the largest numbers computed.
    """
    tokens = op.parameter([1, _TOKENS, _CHANNELS], np.float32)
    found = Int8Products(exact_kernels=True).of(tokens, np.ones((_TOKENS, _CHANNELS), np.float32))
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = ov.Core().compile_model(ov.Model(found, [tokens], "probe"), "CPU", hints)
    sums = compiled([np.ones((1, _TOKENS, _CHANNELS), np.float32)])[0]
    return bool(np.allclose(sums, _CHANNELS, rtol=1e-4))


def _number(value: float) -> ov.Output:
    return op.constant(np.full((1, 1, 1), value, np.float32))
