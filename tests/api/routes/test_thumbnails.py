"""Small pictures of stored images: right, kept by browsers while they are, and the stored file stays as it is."""

import contextlib
import os
import threading

import cv2
import numpy as np
import pytest

from backend.service import thumbnails
from backend.service.inspection import InspectionService
from tests.api.sending import IDS, check_refusal


@pytest.fixture
def client(calling):
    with calling() as client:
        yield client


@pytest.fixture
def stored(client, tmp_path):
    """Stores an image; asks for it, and its file."""

    def store(content, name="a.png"):
        reply = client.post("/datasets/ok/upload", data=IDS, files={"images": (name, content, "image/png")})
        assert reply.status_code == 200, reply.text
        filename = reply.json()["files"][0]

        def ask(headers=None, **query):
            query = {**IDS, "label": "ok", "filename": filename, **query}
            return client.get("/datasets/file", params=query, headers=headers or {})

        return ask, next((tmp_path / "models").rglob(filename))

    return store


def smooth(height, width):
    """An image whose JPEG is nearly the image."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 200 / height, columns * 200 / width, 100 + 0 * rows], axis=2).astype(np.uint8)


def encoded(image, extension=".png"):
    return cv2.imencode(extension, image)[1].tobytes()


def decoded(reply):
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "image/jpeg"
    return cv2.imdecode(np.frombuffer(reply.content, np.uint8), cv2.IMREAD_UNCHANGED).astype(int)


@pytest.mark.parametrize(
    ("image_hw", "size", "expected_hw"),
    [((300, 600), 256, (128, 256)), ((600, 300), 100, (100, 50)), ((40, 60), 256, (40, 60)), ((9, 2000), 64, (1, 64))],
)
def test_the_longer_side_has_the_size_and_the_content_is_the_images(stored, image_hw, size, expected_hw):
    image = smooth(*image_hw)
    small = decoded(stored(encoded(image))[0](size=size))
    assert small.shape == (*expected_hw, 3)
    expected = cv2.resize(image, expected_hw[::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(small - expected).mean() < 3


def test_without_size_it_is_the_stored_file_that_nothing_may_keep(stored):
    content = encoded(smooth(50, 60))
    ask, _ = stored(content)
    for reply in (ask(), ask(size=""), ask(headers={"If-None-Match": "*"})):
        assert reply.content == content
        assert reply.headers.get_list("cache-control") == ["no-store"]
        assert "etag" not in reply.headers


def test_the_stored_file_stays_as_it_is(stored):
    content = encoded(smooth(300, 300))
    ask, file = stored(content)
    before, files = file.stat(), sorted(file.parent.iterdir())
    for size in (16, 256, 1024):
        decoded(ask(size=size))
    after = file.stat()
    assert (file.read_bytes(), after.st_mtime_ns) == (content, before.st_mtime_ns)
    assert sorted(file.parent.iterdir()) == files


def test_what_a_browser_has_is_not_sent_again(stored, monkeypatch):
    ask, file = stored(encoded(smooth(300, 300)))
    first = ask(size=64)
    tag = first.headers["etag"]
    assert first.headers.get_list("cache-control") == ["private, no-cache"]
    other = ask(size=65).headers["etag"]
    assert other != tag
    monkeypatch.setattr("backend.api.routes.datasets.thumbnail_of", lambda *_: pytest.fail("drawn for nothing"))
    for known in (tag, f"W/{tag}", f"{other}, {tag}", "*"):
        reply = ask(size=64, headers={"If-None-Match": known})
        assert (reply.status_code, reply.content, reply.headers["etag"]) == (304, b"", tag)
        assert reply.headers.get_list("cache-control") == ["private, no-cache"]
    monkeypatch.undo()
    assert ask(size=64, headers={"If-None-Match": other}).status_code == 200
    status = file.stat()
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))
    assert ask(size=64, headers={"If-None-Match": tag}).status_code == 200, "somebody replaced the file"


@pytest.mark.parametrize("brightest", [1023, 4095, 65535])
def test_16_bits_are_shown_by_the_bits_that_they_use(stored, brightest):
    image = (smooth(80, 80)[..., 0] / 200 * brightest).astype(np.uint16)
    image[0, 0] = brightest
    small = decoded(stored(encoded(image))[0](size=80))
    assert small.max() > 230


@pytest.mark.parametrize("size", ["15", "1025", "-1", "large", "1e2"])
def test_other_sizes_are_refused(stored, size):
    ask, _ = stored(encoded(smooth(30, 30)))
    check_refusal(ask(size=size), 422, "size")


def test_an_image_that_is_gone_or_damaged_is_an_error(stored):
    ask, file = stored(encoded(smooth(30, 30)))
    check_refusal(ask(size=64, filename="other.png"), 404, "other.png")
    file.write_bytes(file.read_bytes()[:-30])
    check_refusal(ask(size=64), 400, "truncated or damaged")


def test_one_thumbnail_is_drawn_at_a_time_within_the_pixel_budget(stored, monkeypatch):
    ask, _ = stored(encoded(smooth(200, 300)))
    running, most, held = [], [], []
    draw, hold = thumbnails.thumbnail, InspectionService.hold_pixels

    @contextlib.contextmanager
    def noted(service, pixels):
        with hold(service, pixels):
            held.append(pixels)
            yield

    def drawing(*given):
        running.append(1)
        most.append(len(running))
        threading.Event().wait(0.02)
        running.pop()
        return draw(*given)

    monkeypatch.setattr(InspectionService, "hold_pixels", noted)
    monkeypatch.setattr(thumbnails, "thumbnail", drawing)
    threads = [threading.Thread(target=ask, kwargs={"size": 32}) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 5
    assert held == [200 * 300] * 5
