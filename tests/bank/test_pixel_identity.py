"""Images are told apart by their pixels: in the checkpoint, on the way to the network, and in what a bank remembers."""

import hashlib
import threading
from contextlib import nullcontext

import cv2
import numpy as np
import pytest

from backend.bank.checkpoint import Checkpoint, Kept
from backend.bank.copies import Look
from backend.bank.embedding import embed_all
from backend.bank.images import BankImage, OwnImages, as_metadata, recorded_images, suspicious_images
from backend.bit_depth import decode
from backend.features import DinoV2Features, ExtractorIdentity
from backend.utils import ImageLimits, NamedImage, decode_image, pixels_sha256

LIMITS = ImageLimits(1 << 20, 1 << 20)
IDENTITY = ExtractorIdentity("model", "0" * 64, 28, "stretch", "float32")
PICTURE = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)


class Runtime:
    """Tokens of an image are its mean; counts the images."""

    batch, grid_hw, dim = 2, (2, 2), 3
    name, device, precision, block = "counting", "cpu", "float32", None

    def __init__(self):
        self.n_images = 0

    def forward(self, pixels):
        self.n_images += len(pixels)
        return np.stack([np.full((4, 3), image.mean(), np.float32) for image in pixels])


def encoded(extension, image=PICTURE):
    content = cv2.imencode(extension, image)[1].tobytes()
    return NamedImage(f"part{extension}", lambda: content)


def embed(images, checkpoint=None, known=()):
    features = DinoV2Features(Runtime(), "model", "0" * 64, 28)
    embedded = embed_all(
        images,
        features,
        LIMITS,
        turn=nullcontext,
        checkpoint=checkpoint,
        on_progress=lambda *_: None,
        known=known,
    )
    return embedded, features.runtime.n_images


def bank_image(name, sha256, pixels, score=0.5, **more):
    return BankImage(name, sha256, 20, 30, 0, None, {"99": score}, pixels, **more)


def test_hash_is_that_of_shape_type_and_decoded_bytes():
    expected = hashlib.sha256(b"(20, 30, 3) uint8" + PICTURE.tobytes()).hexdigest()
    assert pixels_sha256(PICTURE) == expected
    assert pixels_sha256(np.asfortranarray(PICTURE)) == expected
    assert pixels_sha256(PICTURE.reshape(30, 20, 3)) != expected


@pytest.mark.parametrize("extension", [".png", ".bmp"])
def test_lossless_formats_of_one_image_have_one_hash(extension):
    assert pixels_sha256(decode_image(encoded(extension).read(), "part", LIMITS)) == pixels_sha256(PICTURE)


def test_alpha_channel_does_not_make_another_image():
    bgra = np.dstack([PICTURE, np.full((20, 30), 7, np.uint8)])
    assert pixels_sha256(decode_image(encoded(".png", bgra).read(), "part", LIMITS)) == pixels_sha256(PICTURE)


def test_one_changed_pixel_makes_another_image():
    other = PICTURE.copy()
    other[3, 4, 1] ^= 1
    assert pixels_sha256(other) != pixels_sha256(PICTURE)


def test_known_images_are_not_embedded_and_keep_the_order_of_the_rest():
    others = [encoded(".png", np.full((20, 30, 3), level, np.uint8)) for level in (40, 80, 120)]
    images = [others[0], encoded(".bmp"), others[1], encoded(".png"), others[2]]
    alone, _ = embed(others)
    embedded, n_images = embed(images, known={pixels_sha256(PICTURE)})
    assert embedded.numbers == [0, 2, 4]
    assert n_images == 3
    assert np.array_equal(embedded.embeddings, alone.embeddings)
    assert embedded.looks[1].pixels_sha256 == embedded.looks[3].pixels_sha256 == pixels_sha256(PICTURE)


def test_each_image_is_decoded_once_and_off_the_networks_thread(monkeypatch):
    threads = []

    def noted(content, name, limits, depth):
        threads.append(threading.current_thread())
        return decode(content, name, limits, depth)

    monkeypatch.setattr("backend.bank.embedding.decode", noted)
    embed([encoded(".png"), encoded(".bmp")])
    assert len(threads) == 2
    assert threading.current_thread() not in threads


def test_checkpoint_knows_the_pixels_so_that_nothing_is_decoded_again(tmp_path, monkeypatch):
    first, _ = embed([encoded(".png")], Checkpoint(tmp_path, IDENTITY))
    monkeypatch.setattr("backend.bank.embedding.decode", None)
    again, n_images = embed([encoded(".png")], Checkpoint(tmp_path, IDENTITY))
    assert n_images == 0
    assert again.looks[0].pixels_sha256 == pixels_sha256(PICTURE)
    assert np.array_equal(again.looks[0].miniature, Look.of(PICTURE).miniature)
    assert np.array_equal(again.embeddings, first.embeddings)


def test_checkpoint_of_an_earlier_version_saves_the_network_still(tmp_path):
    """An earlier version kept a NumPy array and nothing behind it."""
    Checkpoint(tmp_path, IDENTITY).put(encoded(".png").read(), Kept(np.full((4, 3), 7, np.float32), None))
    (file,) = tmp_path.iterdir()
    with file.open("wb") as older:
        np.save(older, np.full((4, 3), 7, np.float32))
    embedded, n_images = embed([encoded(".png")], Checkpoint(tmp_path, IDENTITY))
    assert n_images == 0
    assert np.all(embedded.embeddings == 7)
    assert embedded.looks[0].pixels_sha256 == pixels_sha256(PICTURE)


def test_earlier_version_reads_the_embeddings_of_a_new_checkpoint(tmp_path):
    Checkpoint(tmp_path, IDENTITY).put(b"image", Kept(np.full((4, 3), 7, np.float32), Look.of(PICTURE)))
    (file,) = tmp_path.iterdir()
    assert np.all(np.load(file, allow_pickle=False) == 7)


@pytest.mark.parametrize("lost_bytes", [1, 4096, 4097, 4159])
def test_torn_end_of_a_checkpoint_costs_a_decoding_and_nothing_else(tmp_path, lost_bytes):
    embed([encoded(".png")], Checkpoint(tmp_path, IDENTITY))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-lost_bytes])
    embedded, n_images = embed([encoded(".png")], Checkpoint(tmp_path, IDENTITY))
    assert n_images == 0
    assert embedded.looks[0].pixels_sha256 == pixels_sha256(PICTURE)


def test_metadata_of_an_earlier_version_has_no_key_for_pixels():
    older = BankImage("a.png", "1" * 64, 20, 30, 0, None, {"99": 0.5})
    assert as_metadata([older]) == [
        {
            "name": "a.png",
            "sha256": "1" * 64,
            "height": 20,
            "width": 30,
            "n_unique": 0,
            "shape": None,
            "scores": {"99": 0.5},
        }
    ]
    assert recorded_images({"images": as_metadata([older])}) == [older]
    newer = bank_image("a.png", "1" * 64, "2" * 64)
    assert recorded_images({"images": as_metadata([newer])}) == [newer]
    assert "copy_of" not in as_metadata([newer])[0]


def test_images_of_a_bank_are_found_by_file_and_by_pixels():
    newer, older = bank_image("a.png", "1" * 64, "2" * 64), bank_image("b.png", "3" * 64, None)
    own = OwnImages({"images": as_metadata([newer, older]), "blur_sigma": 1.0}, 1.0)
    assert own.of_file("1" * 64) == own.of_pixels("2" * 64) == newer
    assert own.of_file("3" * 64) == older
    assert own.of_pixels("3" * 64) is None
    assert (newer.identity, older.identity) == ("2" * 64, "3" * 64)


def test_defective_part_in_two_formats_counts_once_and_is_suspicious_twice():
    good = [bank_image(f"{n}.png", f"{n}" * 64, f"{n}" * 64, 0.5 + n / 100) for n in range(5)]
    bad = [bank_image(name, digest * 64, "e" * 64, 0.9) for name, digest in (("bad.png", "f"), ("bad.bmp", "d"))]
    assert [found.filename for found in suspicious_images([*good, *bad], 99)] == ["bad.png", "bad.bmp"]
