"""Every image of a fit is embedded in its place, while the next ones are decoded, and failures leave no thread."""

import threading
import time
from contextlib import contextmanager, nullcontext

import cv2
import numpy as np
import pytest

from backend.bank import memory_limits
from backend.bank.checkpoint import Checkpoint
from backend.bank.embedding import embed_all
from backend.bank.memory_limits import check_memory
from backend.common.errors import InvalidImage, NonFiniteEmbeddings, TooLarge
from backend.common.telemetry import RequestRecord, recording
from backend.features import DinoV2Features, ExtractorIdentity, preprocess
from backend.utils import ImageLimits, NamedImage

LIMITS = ImageLimits(1 << 20, 1 << 20)
IDENTITY = ExtractorIdentity("model", "0" * 64, 28, "stretch", "float32")


class Runtime:
    """Tokens of an image are its mean, its brightest pixel and its number in the pass; notes the passes."""

    name, device, precision, block = "counting", "cpu", "float32", None
    grid_hw = (2, 2)
    dim = 3

    def __init__(self, batch):
        self.batch = batch
        self.passes = []

    def forward(self, pixels):
        self.passes.append(len(pixels))
        means = pixels.mean(axis=(1, 2, 3))
        return np.stack([np.full((4, 3), (mean, mean + 1, mean + 2), np.float32) for mean in means])


def features_with(batch):
    return DinoV2Features(Runtime(batch), "model", "0" * 64, 28)


def grey(value):
    png = cv2.imencode(".png", np.full((20, 30, 3), value, np.uint8))[1].tobytes()
    return NamedImage(f"{value}.png", lambda: png)


def embed(images, features, checkpoint=None, turn=nullcontext, reports=None):
    return embed_all(
        images,
        features,
        LIMITS,
        turn=turn,
        checkpoint=checkpoint,
        on_progress=lambda done, total: reports.append((done, total)) if reports is not None else None,
    ).embeddings


def expected(images):
    pixels = [preprocess(cv2.imdecode(np.frombuffer(image.read(), np.uint8), 1), 28) for image in images]
    return np.concatenate([Runtime(1).forward(image[None])[0] for image in pixels])


@pytest.mark.parametrize("batch", [1, 3, 16])
@pytest.mark.parametrize("count", [1, 2, 6, 7])
def test_every_image_is_embedded_in_its_place_whatever_the_batch(batch, count):
    images = [grey(10 * value) for value in range(count)]
    features, reports = features_with(batch), []
    embeddings = embed(images, features, reports=reports)
    assert embeddings.dtype == np.float32
    assert np.array_equal(embeddings, expected(images))
    assert features.runtime.passes == [batch] * (count // batch) + ([count % batch] if count % batch else [])
    assert reports[-1] == (count, count)
    assert [done for done, _ in reports] == sorted(done for done, _ in reports)


@pytest.mark.slow
def test_images_are_decoded_while_the_network_runs_few_in_advance():
    """The next image is read while this one has the network, and only a few are read ahead."""
    read, inside = [], threading.Event()

    def image(number):
        png = grey(number).read()

        def content():
            read.append(number)
            if number == 1:
                inside.set()
            return png

        return NamedImage(str(number), content)

    held = []

    @contextmanager
    def turn():
        assert inside.wait(20), "the next image is read while this one has the network"
        time.sleep(0.05)
        held.append(len(read))
        yield

    embed([image(number) for number in range(20)], features_with(1), turn=turn)
    assert len(held) == 20
    assert max(ahead - position for position, ahead in enumerate(held)) <= 4


def test_a_broken_image_ends_the_fit_by_name_and_no_thread_stays_behind():
    before = threading.active_count()
    broken = NamedImage("broken.png", lambda: grey(1).read()[:40])
    with pytest.raises(InvalidImage, match=r"broken\.png"):
        embed([grey(1), broken, *[grey(value) for value in range(2, 30)]], features_with(1))
    assert threading.active_count() == before


def test_stages_of_the_decoding_thread_count_for_the_request():
    record = RequestRecord("fit")
    with recording(record):
        embed([grey(1), grey(2)], features_with(1))
    assert {"decode", "preprocess", "extract"} <= set(record.timings_ms)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_fit_that_was_stopped_embeds_only_what_is_missing(tmp_path, batch):
    images = [grey(10 * value) for value in range(7)]
    broken = NamedImage("broken.png", lambda: b"")
    first = features_with(batch)
    with pytest.raises(InvalidImage):
        embed([*images[:4], broken], first, Checkpoint(tmp_path, IDENTITY))
    again = features_with(batch)
    embeddings = embed(images[::-1], again, Checkpoint(tmp_path, IDENTITY))
    assert np.array_equal(embeddings, expected(images[::-1]))
    assert sum(first.runtime.passes) == 4
    assert sum(again.runtime.passes) == 3


def test_a_forward_pass_that_fails_leaves_no_thread_behind():
    features, before = features_with(1), threading.active_count()

    def forward(pixels):
        raise RuntimeError("out of memory")

    features.runtime.forward = forward
    with pytest.raises(RuntimeError, match="out of memory") as caught:
        embed([grey(value) for value in range(30)], features)
    assert threading.active_count() == before
    assert caught.traceback, "which holds the frames, and so what they refer to, until here"


def test_a_checkpoint_that_cannot_be_kept_does_not_end_the_fit(tmp_path):
    (tmp_path / "file").write_text("in the way")
    images = [grey(10 * value) for value in range(3)]
    embeddings = embed(images, features_with(1), Checkpoint(tmp_path / "file" / "fit", IDENTITY))
    assert np.array_equal(embeddings, expected(images))


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_numbers_that_are_not_finite_end_the_fit(number):
    features = features_with(1)
    features.runtime.forward = lambda pixels: np.full((1, 4, 3), number, np.float32)
    with pytest.raises(NonFiniteEmbeddings, match="PRECISION=float32"):
        embed([grey(1)], features)


def test_fit_too_large_for_memory_is_refused_with_the_arithmetic(monkeypatch):
    runtime = Runtime(1)
    runtime.grid_hw, runtime.dim = (32, 32), 384
    features = DinoV2Features(runtime, "model", "0" * 64, 448)
    # 1000 images: 1,024,000 embeddings of 384 float32 and what is known of each; 2 % of them six times over; the
    # largest image decoded, twice; five images as bytes and as pixels for the network.
    needed = 1_024_000 * (1536 + 64) + 20_480 * 1536 * 6
    needed += 5_000_000 * 3 * 2 + 5 * (3 * 448 * 448 * 4 + 1_000_000) + (256 << 20)
    monkeypatch.setattr(memory_limits, "free_memory", lambda: needed)
    check_memory(features, 1000, 0.02, 5_000_000, 1_000_000)
    monkeypatch.setattr(memory_limits, "free_memory", lambda: needed - 1)
    with pytest.raises(TooLarge) as caught:
        check_memory(features, 1000, 0.02, 5_000_000, 1_000_000)
    text = str(caught.value)
    for part in ("1000 images × 1024 patches × (384 × 4 + 64) bytes = 1638 MB", "189 MB", "2%", "315 MB", "2143 MB"):
        assert part in text
    with pytest.raises(TooLarge):
        check_memory(features, 1000, 1.0, 5_000_000, 1_000_000)


def test_all_fits_prepare_their_images_in_one_thread_which_stays():
    threads = set()

    def image(value):
        def read():
            threads.add(threading.current_thread())
            return grey(value).read()

        return NamedImage(f"{value}.png", read)

    for _ in range(3):
        embed([image(10), image(20)], features_with(1))
    (thread,) = threads
    assert thread.is_alive()
