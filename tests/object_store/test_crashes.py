"""A replica dies before or after any request to the store: others find the old or the new, whole.

As `tests/disk/test_crashes.py` for the writes of a folder.
"""

import contextlib
import itertools

import pytest

from backend.calib import calibrate
from backend.disk.datasets import NewSample
from backend.disk.memory_file import memory_id
from backend.object_store.bucket import Bucket
from tests.factories import IN_RECIPE, KEY, calibration_of, memory_of

REQUESTS = ("get", "get_unless", "get_large", "put", "swap", "list", "delete", "head")


class Died(BaseException):
    """The process was killed."""


def dying(monkeypatch, at, before):
    """Let the process die at a request; returns the count of requests so far."""
    numbers, dead = itertools.count(1), []

    def hooked(real):
        def request(*args):
            if dead:
                raise Died
            number = next(numbers)
            if number == at and before:
                dead.append(number)
                raise Died
            result = real(*args)
            if number == at:
                dead.append(number)
                raise Died
            return result

        return request

    for name in REQUESTS:
        monkeypatch.setattr(Bucket, name, hooked(getattr(Bucket, name)))
    return dead


def prepare(one):
    for seed in (1, 2):
        one.models.save_memory(KEY, memory_of(seed), {"n_images": seed})
        one.calibrate(0.4 + seed / 100)
    one.layouts.write("line 1", b'{"a": 1}', lambda _: None)


def feed_back(one):
    before, memory = one.models.load(KEY), memory_of(3)
    calibration = calibrate(
        [0.6], [], mm_per_px=0.2, area_mm2_thr=1.0, score_percentile=99, memory_id=memory_id(memory)
    )
    one.models.save_memory(KEY, memory, {}, instead_of=before, calibration=calibration)


def upload(one):
    samples = [NewSample(lambda number=number: b"\x89PNG %d" % number * 900, ".png", {}) for number in range(2)]
    one.datasets.add_compared(KEY, "ok", samples, None, skip_duplicates=False)


def lock_and_fit(one):
    with one.recipes.locking_scale("line 1", 0.2):
        one.models.save_memory(IN_RECIPE, memory_of(4), {})


CHANGES = {
    "fit": lambda one: one.models.save_memory(KEY, memory_of(3), {}),
    "calibrate": lambda one: one.models.save_calibration(KEY, calibration_of(one.models.load(KEY), 0.7)),
    "feedback": feed_back,
    "roll back": lambda one: one.models.roll_back(KEY),
    "upload": upload,
    "layout": lambda one: one.layouts.write("line 1", b'{"a": %d}' % 2, lambda _: None),
    "first fit of a recipe": lock_and_fit,
}


def told(one):
    """What a replica serves, but for names and times."""
    found = []
    for key in (KEY, IN_RECIPE):
        fitted = one.models.load(key)
        found.append((fitted.memory_id, fitted.key, fitted.calibration and fitted.calibration.threshold))
        for version, calibration in one.models.versions(key):
            found.append((version.number, version.facts.memory_id, calibration and calibration.threshold))
    images = [image.read() for image in one.datasets.samples(KEY, "ok")]
    return found, images, one.layouts.read("line 1")


@pytest.mark.slow
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("change", CHANGES)
def test_death_at_any_request_leaves_the_old_or_the_new(places, monkeypatch, change, before):
    first = places()
    prepare(first())
    old, bucket = told(first()), first().bucket
    objects = {item.key: bucket.get_large(item.key) for item in bucket.list("")}
    seen = []
    for at in itertools.count(1):
        replica = places()
        one = replica()
        for key, content in objects.items():
            one.bucket.put(key, content)
        one.models.load(KEY)
        with monkeypatch.context() as patched:
            dead = dying(patched, at, before)
            with contextlib.suppress(Died):
                CHANGES[change](one)
        found, scale = told(replica()), replica().recipes.mm_per_px("line 1")
        seen.append((found == old, found))
        if change == "first fit of a recipe":
            assert found == old or scale == 0.2, "no model of a recipe without its scale"
        if not dead:
            break
    *died, (is_old, new) = seen
    assert not is_old
    assert len(died) >= 2
    assert all(was_old or found == new for was_old, found in died)
    assert died[0][0], "at the first request nothing was done yet"
    assert before or died[-1][1] == new, "at the last one all was"
