"""Who waits for the network and how long: inferences, fits and their turns."""

import contextlib
import threading
import time

import numpy as np
import pytest

from backend.common.errors import Busy
from backend.common.telemetry import QUEUE_DEPTH, QUEUE_REJECTED, RequestRecord, recording
from backend.network.queueing import NetworkQueue
from backend.service.pixel_budget import PixelBudget

DEADLINE_S = 20


def number(pixels):
    return int(pixels.flat[0])


class Network:
    """A network that notes what it ran, and returns tokens that name the image; closed, it makes passes wait."""

    def __init__(self) -> None:
        self.passes: list[list[int]] = []
        self.opened = threading.Event()
        self.opened.set()

    def forward(self, pixels):
        assert self.opened.wait(DEADLINE_S)
        self.passes.append([number(image) for image in pixels])
        if -1 in self.passes[-1]:
            raise RuntimeError("out of memory")
        return np.array([[[number(image)]] for image in pixels], np.float32)


class Line:
    """Threads that queue for one turn each, in a known order, and what came of them."""

    def __init__(self, **limits) -> None:
        self.network = Network()
        self.queue = NetworkQueue(self.network.forward, **{"max_inferences": 32, "max_fits": 4, **limits})
        self.tokens: dict[int, int] = {}
        self.failures: dict[int, BaseException] = {}
        self._threads: list[threading.Thread] = []

    def infer(self, image: int, forward=None) -> None:
        def work() -> None:
            try:
                self.tokens[image] = number(self.queue.infer(np.full((3, 2, 2), image, np.float32), forward))
            except RuntimeError as exc:
                self.failures[image] = exc

        self._start(work, lambda: len(self.queue._inferences))

    def fit_turn(self, name: int) -> None:
        def work() -> None:
            with self.queue.fit_turn():
                self.network.passes.append([name])

        self._start(work, lambda: len(self.queue._fit_turns))

    def finish(self) -> list[list[int]]:
        for thread in self._threads:
            thread.join(DEADLINE_S)
            assert not thread.is_alive()
        return self.network.passes

    def _start(self, work, waiting) -> None:
        before = waiting()
        self._threads.append(threading.Thread(target=work))
        self._threads[-1].start()
        wait_until(lambda: waiting() > before)  # only that it waits tells that it has its place


def wait_until(condition) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture
def line():
    return Line()


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_one_inference_beyond_the_limit_is_refused_until_a_place_is_free(limit):
    queue = NetworkQueue(Network().forward, max_inferences=limit, max_fits=1)
    places = [queue.inference() for _ in range(limit)]
    for place in places:
        place.__enter__()
    rejected = QUEUE_REJECTED._value.get()
    with pytest.raises(Busy, match=f"{limit} inferences") as caught, queue.inference():
        pytest.fail("admitted beyond the limit")
    assert caught.value.retry_after_s >= 1
    assert QUEUE_REJECTED._value.get() == rejected + 1
    places[0].__exit__(None, None, None)
    with queue.inference(), pytest.raises(Busy), queue.inference():
        pytest.fail("admitted beyond the limit")
    for place in places[1:]:
        place.__exit__(None, None, None)


def test_fits_do_not_take_the_places_of_inferences_nor_the_other_way_round():
    queue = NetworkQueue(Network().forward, max_inferences=1, max_fits=1)
    with queue.fit() as wait_for_those_before, queue.inference():
        wait_for_those_before()
        with pytest.raises(Busy, match="1 inferences"), queue.inference():
            pytest.fail("admitted beyond the limit")
        with pytest.raises(Busy, match="1 fits"), queue.fit():
            pytest.fail("admitted beyond the limit")


def test_fits_run_one_after_the_other_in_the_order_of_their_arrival():
    queue = NetworkQueue(Network().forward, max_inferences=1, max_fits=4)
    running, order = [], []

    def fit(name):
        with queue.fit() as wait_for_those_before:
            wait_for_those_before()
            running.append(name)
            order.append(list(running))
            time.sleep(0.01)
            running.remove(name)

    threads = []
    with queue.fit():
        for name in range(3):
            threads.append(threading.Thread(target=fit, args=(name,)))
            threads[-1].start()
            wait_until(lambda: len(queue._fits) == name + 2)  # noqa: B023
        assert order == []
    for thread in threads:
        thread.join(DEADLINE_S)
    assert order == [[0], [1], [2]]


@pytest.mark.parametrize("place", ["inference", "fit"])
def test_a_request_that_fails_gives_its_place_back(place):
    queue = NetworkQueue(Network().forward, max_inferences=1, max_fits=1)
    depth = QUEUE_DEPTH._value.get()
    for _ in range(3):
        with contextlib.suppress(ValueError), getattr(queue, place)():
            assert QUEUE_DEPTH._value.get() == depth + 1
            raise ValueError("broken")
    assert QUEUE_DEPTH._value.get() == depth


def test_one_pass_or_fit_turn_runs_at_a_time_and_tokens_stay_with_images():
    """Many threads infer and fit at once: nothing overlaps, and everyone gets the tokens of their own image."""
    running, most, turns = 0, 0, 0

    def busy():
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.0005)
        running -= 1

    def forward(pixels):
        busy()
        return pixels[:, :1, :1, 0]

    queue = NetworkQueue(forward, max_inferences=32, max_fits=4)
    wrong = []

    def work(worker):
        nonlocal turns
        for image in range(20):
            if worker % 3 == 0:
                with queue.fit_turn():
                    busy()
                    turns += 1
            else:
                tokens = queue.infer(np.full((3, 1, 1), 100 * worker + image, np.float32))
                wrong.extend([tokens] if number(tokens) != 100 * worker + image else [])

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
        assert not thread.is_alive()
    assert most == 1
    assert turns == 60
    assert wrong == []


def test_inferences_are_served_in_the_order_of_their_arrival(line):
    with line.queue.fit_turn():
        for image in range(7):
            line.infer(image)
        assert line.network.passes == []
    assert line.finish() == [[image] for image in range(7)]
    assert line.tokens == {image: image for image in range(7)}


def test_inferences_go_before_the_turns_of_a_fit_that_came_earlier(line):
    with line.queue.fit_turn():
        line.fit_turn(100)
        for image in range(3):
            line.infer(image)
    assert line.finish() == [[0], [1], [2], [100]]


def test_a_fit_that_waits_gets_a_turn_after_8_inferences(line):
    with line.queue.fit_turn():
        line.fit_turn(100)
        line.fit_turn(101)
        for image in range(20):
            line.infer(image)
    images = [[image] for image in range(20)]
    assert line.finish() == [*images[:8], [100], *images[8:16], [101], *images[16:]]


def test_new_fit_turn_waits_for_inferences_whatever_ran_before_it(line):
    """A fit turn that has just arrived lets an inference go first, however many ran before it came."""
    for image in range(20):
        line.queue.infer(np.full((3, 2, 2), image, np.float32))
    line.network.passes.clear()
    with line.queue.fit_turn():
        line.fit_turn(100)
        line.infer(0)
    assert line.finish() == [[0], [100]]


def test_inferences_that_wait_share_a_pass_up_to_the_size_of_a_batch():
    line = Line(batch=4)
    with line.queue.fit_turn():
        for image in range(10):
            line.infer(image)
    assert line.finish() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert line.tokens == {image: image for image in range(10)}


def test_inferences_of_different_networks_share_no_pass():
    line, other = Line(batch=4), Network()
    with line.queue.fit_turn():
        for image in range(6):
            line.infer(image, other.forward if image in (2, 3) else None)
    assert line.finish() == [[0, 1], [4, 5]]
    assert other.passes == [[2, 3]]
    assert line.tokens == {image: image for image in range(6)}


def test_pass_waits_for_others_to_share_it_and_only_until_it_is_full():
    """A pass waits a moment for others, and starts as soon as the batch is full, long before the moment is over."""
    line = Line(batch=3, window_s=DEADLINE_S)
    first = threading.Thread(target=lambda: line.queue.infer(np.full((3, 2, 2), 0, np.float32)))
    first.start()
    wait_until(lambda: line.queue._running)
    assert line.network.passes == []
    line.infer(1)
    second = threading.Thread(target=lambda: line.queue.infer(np.full((3, 2, 2), 2, np.float32)))
    second.start()
    first.join(DEADLINE_S / 2)
    second.join(DEADLINE_S / 2)
    assert line.finish() == [[0, 1, 2]]


def test_a_pass_alone_runs_when_its_window_is_over():
    line = Line(batch=3, window_s=0.01)
    line.queue.infer(np.full((3, 2, 2), 5, np.float32))
    assert line.network.passes == [[5]]


def test_failed_pass_fails_for_all_who_share_it_and_frees_the_network():
    line = Line(batch=2)
    with line.queue.fit_turn():
        for image in (0, -1, 2):
            line.infer(image)
    line.finish()
    assert sorted(line.failures) == [-1, 0]
    leader, follower = line.failures[0], line.failures[-1]
    assert str(leader) == "out of memory"
    assert follower.__cause__ is leader
    assert follower is not leader, "each request raises an exception of its own"
    assert line.tokens == {2: 2}


@pytest.mark.parametrize("what", ["inference", "fit turn", "inference that waits for others"])
def test_a_wait_that_is_interrupted_leaves_nothing_behind(what, monkeypatch):
    line = Line(batch=2, window_s=DEADLINE_S)
    wait_for = line.queue._changed.wait_for

    def interrupted(predicate, timeout=None):
        if what.endswith("others") and timeout is None:
            return wait_for(predicate)
        raise KeyboardInterrupt

    def ask():
        if what != "fit turn":
            line.queue.infer(np.zeros((3, 2, 2), np.float32))
        with line.queue.fit_turn():
            pytest.fail("had the network")

    with monkeypatch.context() as patched:
        patched.setattr(line.queue._changed, "wait_for", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ask()
    with line.queue.fit_turn():
        line.infer(1)
        line.infer(2)
    assert line.finish() == [[1, 2]]


def test_inferences_that_share_a_pass_count_one_by_one_before_a_fit():
    """Eight inferences in two shared passes count as eight, so the fit that waits comes next."""
    line = Line(batch=4)
    with line.queue.fit_turn():
        line.fit_turn(100)
        for image in range(12):
            line.infer(image)
    assert line.finish() == [[0, 1, 2, 3], [4, 5, 6, 7], [100], [8, 9, 10, 11]]


def test_a_fit_turn_that_fails_frees_the_network(line):
    def fail():
        with line.queue.fit_turn():
            line.infer(0)
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        fail()
    assert line.finish() == [[0]]


def test_waiting_counts_as_queue_and_the_pass_as_extract_for_all():
    """Both requests that share a pass record the same times."""
    line = Line(batch=2)
    line.network.opened.clear()
    records = [RequestRecord("0"), RequestRecord("1")]

    def infer(image):
        with recording(records[image]):
            line.queue.infer(np.full((3, 2, 2), image, np.float32))

    with line.queue.fit_turn():
        threads = [threading.Thread(target=infer, args=(image,)) for image in (0, 1)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(line.queue._inferences) == 2)
        time.sleep(0.05)
    time.sleep(0.05)
    line.network.opened.set()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert len(line.network.passes) == 1
    for record in records:
        assert record.timings_ms["queue"] >= 45
        assert record.timings_ms["extract"] >= 45


# --- the budget of pixels


def in_thread(budget, pixels):
    """Hold pixels in a thread of its own: an event that they are held, one that lets them go, and the thread."""
    held, let_go = threading.Event(), threading.Event()

    def hold():
        with budget.hold(pixels):
            held.set()
            assert let_go.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    return held, let_go, thread


def test_images_share_the_budget_of_pixels_and_wait_for_it_in_order():
    budget = PixelBudget(100)
    first, second = in_thread(budget, 60), in_thread(budget, 40)
    assert first[0].wait(10)
    assert second[0].wait(10)
    large = in_thread(budget, 90)
    time.sleep(0.1)
    small = in_thread(budget, 5)
    second[1].set()
    assert not small[0].wait(0.2), "40 pixels are free, and the large one came before"
    assert not large[0].is_set()
    first[1].set()
    assert large[0].wait(10)
    assert small[0].wait(10), "5 fit beside 90"
    for _, let_go, thread in (large, small, first, second):
        let_go.set()
        thread.join()


def test_an_image_larger_than_the_budget_is_worked_on_alone():
    budget = PixelBudget(100)
    huge = in_thread(budget, 500)
    assert huge[0].wait(10)
    other = in_thread(budget, 1)
    assert not other[0].wait(0.2)
    huge[1].set()
    assert other[0].wait(10)
    other[1].set()
    for thread in (huge[2], other[2]):
        thread.join()


def test_a_failure_gives_the_pixels_back():
    budget = PixelBudget(100)
    with pytest.raises(ZeroDivisionError), budget.hold(100):
        raise ZeroDivisionError
    with budget.hold(100):
        pass
