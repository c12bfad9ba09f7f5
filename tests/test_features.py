"""Preprocessing pixel by pixel, and the embeddings that the extractor gives."""

import cv2
import numpy as np
import pytest

from backend.common.config import DEFAULT_MODEL
from backend.common.errors import NonFiniteEmbeddings
from backend.features import DinoV2Features, ExtractorIdentity, preprocess
from backend.network.runtimes.openvino import OpenVinoRuntime

SIZES = [
    (512, 512),  # both axes shrink
    (1000, 449),  # by a lot, by a little
    (150, 420),  # both grow
    (150, 900),  # one of each
    (900, 150),
    (448, 448),  # neither
    (448, 600),  # one shrinks, the other stays
    (300, 448),
    (1, 1),
    (1, 700),
    (3, 2),
]


def area_weights(size: int, side: int) -> np.ndarray:
    """[side, size]: the share of every input pixel in every output pixel, as overlaps of intervals."""
    edges = np.arange(side + 1) * size / side
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.maximum(overlap, 0) * side / size


def bilinear_weights(size: int, side: int) -> np.ndarray:
    """[side, size]: linear interpolation between pixel centres, constant beyond the outermost ones."""
    centres = np.clip((np.arange(side) + 0.5) * size / side - 0.5, 0, size - 1)
    return np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(size)))


def stretched_in_float64(image: np.ndarray, side: int) -> np.ndarray:
    along_y, along_x = (
        area_weights(size, side) if size > side else bilinear_weights(size, side) for size in image.shape[:2]
    )
    return np.einsum("iy,yxc,jx->ijc", along_y, image.astype(np.float64), along_x, optimize=True)


def stretched_by_preprocess(image: np.ndarray, side: int) -> np.ndarray:
    """What the network gets, back in grey levels, BGR, float64 [side, side, 3]."""
    mean, deviation = np.array([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]).T
    rgb = (preprocess(image, side).transpose(1, 2, 0).astype(np.float64) * deviation + mean) * 255
    return rgb[..., ::-1]


def assert_stretched(image: np.ndarray, side: int) -> None:
    stretched, exact = stretched_by_preprocess(image, side), stretched_in_float64(image, side)
    # Averages are whole grey levels again, growing is float32.
    shrinks = max(image.shape[:2]) > side
    assert np.abs(stretched - exact).max() <= (0.51 if shrinks else 1e-3)
    assert np.abs(stretched - exact).mean() <= (0.26 if shrinks else 1e-4)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[1]}x{size[0]}")
def test_stretching_averages_areas_when_shrinking_else_is_bilinear(size):
    noise = np.random.default_rng(sum(size)).integers(0, 256, (*size, 3), dtype=np.uint8)
    pixels = preprocess(noise, 448)
    assert pixels.shape == (3, 448, 448)
    assert pixels.dtype == np.float32
    assert pixels.flags.c_contiguous
    assert_stretched(noise, 448)


def test_real_images_stretch_to_any_input_size(images):
    for image in images:
        for side in (448, 336):
            assert_stretched(image, side)


@pytest.mark.parametrize("size", [(420, 150), (150, 420), (900, 700)])
def test_nothing_is_cropped_or_letterboxed(size):
    rows, columns = size
    for y, x in [(0, 0), (0, columns - 1), (rows - 1, 0), (rows - 1, columns - 1), (24, 31), (rows // 2, columns // 3)]:
        image = np.zeros((rows, columns, 3), np.uint8)
        image[y, x] = 255
        stretched = stretched_by_preprocess(image, 448)[..., 0].clip(1e-4) - 1e-4  # what rounding leaves of black
        centre_y, centre_x = (np.average(np.indices((448, 448))[axis] + 0.5, weights=stretched) for axis in (0, 1))
        # Bilinear growth cannot put a pixel's centre beyond the outermost half pixel, hence the half.
        assert centre_y == pytest.approx((y + 0.5) * 448 / rows, abs=0.5 * 448 / rows + 0.5)
        assert centre_x == pytest.approx((x + 0.5) * 448 / columns, abs=0.5 * 448 / columns + 0.5)
    assert stretched_by_preprocess(np.full((rows, columns, 3), 200, np.uint8), 448).min() == pytest.approx(200)


def test_preprocessing_turns_bgr_into_rgb_and_normalises_like_imagenet():
    image = np.empty((448, 448, 3), np.uint8)
    image[:] = (10, 20, 230)  # blue, green, red
    pixels = preprocess(image, 448)
    assert pixels.shape == (3, 448, 448)
    assert pixels.dtype == np.float32
    assert pixels.flags.c_contiguous
    assert pixels[0] == pytest.approx((230 / 255 - 0.485) / 0.229, abs=1e-6)
    assert pixels[1] == pytest.approx((20 / 255 - 0.456) / 0.224, abs=1e-6)
    assert pixels[2] == pytest.approx((10 / 255 - 0.406) / 0.225, abs=1e-6)


def test_preprocessing_of_colour_noise_equals_the_formula_pixel_by_pixel():
    image = np.random.default_rng(1).integers(0, 256, (500, 300, 3), dtype=np.uint8)
    pixels = preprocess(image, 336)
    bgr = stretched_in_float64(image, 336)
    for channel, (mean, deviation) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
        expected = (bgr[..., 2 - channel] / 255 - mean) / deviation
        assert np.abs(pixels[channel] - expected).max() <= 0.51 / 255 / deviation


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[1]}x{size[0]}")
def test_preprocessing_is_opencv_s_stretch_then_the_plain_formula(size):
    image = np.random.default_rng(sum(size)).integers(0, 256, (*size, 3), dtype=np.uint8)
    shrunk = cv2.resize(image, (min(size[1], 448), min(size[0], 448)), interpolation=cv2.INTER_AREA)
    grown = cv2.resize(shrunk.astype(np.float32), (448, 448), interpolation=cv2.INTER_LINEAR)
    mean, deviation = np.array([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)], np.float32).T
    expected = (grown[..., ::-1] / np.float32(255) - mean) / deviation
    assert np.abs(preprocess(image, 448).transpose(1, 2, 0) - expected).max() <= 1e-6


def test_preprocessing_leaves_the_image_alone(images):
    image = images[0].copy()
    preprocess(image, 448)
    assert np.array_equal(image, images[0])


@pytest.mark.parametrize("input_size", [14, 98, 224])
def test_the_token_grid_depends_on_the_input_size_only(weights, images, input_size):
    extractor = DinoV2Features(OpenVinoRuntime(weights.path, input_size), DEFAULT_MODEL, weights.sha256, input_size)
    side = input_size // 14
    for image in images:
        embeddings, token_hw = extractor.extract(image)
        assert token_hw == extractor.token_hw == (side, side)
        assert embeddings.shape == (side * side, extractor.dim) == (side * side, 384)
        assert embeddings.dtype == np.float32


def test_the_same_image_gives_the_same_bytes(features, images):
    first, token_hw = features.extract(images[0])
    assert token_hw == (32, 32)
    assert features.extract(images[0])[0].tobytes() == first.tobytes()


@pytest.mark.slow
def test_an_image_in_a_batch_gets_the_embeddings_it_gets_alone(features, images):
    batch = features.runtime.forward(np.stack([preprocess(image, 448) for image in images[-3:]]))
    assert batch.shape == (3, 1024, 384)
    for together, image in zip(batch, images[-3:], strict=True):
        alone, _ = features.extract(image)
        assert np.abs(together - alone).max() <= 1e-4 * np.abs(alone).max()


def test_a_network_that_overflows_is_an_error_and_no_low_score(features, images):
    with pytest.raises(NonFiniteEmbeddings, match="PRECISION=float32"):
        features.extract(images[0], lambda pixels: np.full((1024, 384), np.nan, np.float32))


def test_tokens_run_row_by_row(features, images):
    # A patch pasted into one corner moves the embeddings of that corner more than those of any other token.
    image = np.ascontiguousarray(images[-1])
    rows, columns = image.shape[:2]
    before, (token_rows, token_columns) = features.extract(image)
    marked = image.copy()
    marked[: rows // 8, -(columns // 8) :] = (0, 255, 0)  # top right
    after, _ = features.extract(marked)
    moved = np.linalg.norm(after - before, axis=1).reshape(token_rows, token_columns)
    y, x = np.unravel_index(moved.argmax(), moved.shape)
    assert y < token_rows // 8
    assert x >= token_columns - token_columns // 8


def test_the_identity_names_everything_that_decides_an_embedding(features, weights):
    assert features.identity.as_dict() == {
        "model": DEFAULT_MODEL,
        "weights_sha256": weights.sha256,
        "input_size": 448,
        "preprocessing": features.identity.preprocessing,
        "precision": "float32",
    }
    assert ExtractorIdentity(**features.identity.as_dict()) == features.identity


@pytest.mark.slow
def test_the_identity_names_a_block_only_where_it_is_not_the_last(features, weights):
    last, tenth = (
        DinoV2Features(OpenVinoRuntime(weights.path, 448, block=block), DEFAULT_MODEL, weights.sha256, 448).identity
        for block in (12, 10)
    )
    assert last == features.identity
    assert tenth.as_dict() == {**features.identity.as_dict(), "block": 10}
    assert ExtractorIdentity(**tenth.as_dict()) == tenth
