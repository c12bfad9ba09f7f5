import contextlib
import threading
import time

import pytest

from backend.errors import Busy
from backend.queueing import NetworkQueue
from backend.telemetry import QUEUE_DEPTH, QUEUE_REJECTED


class Line:
    """Threads that queue for one turn each, in a known order, and note when they had it."""

    def __init__(self, queue: NetworkQueue) -> None:
        self.queue = queue
        self.served: list[str] = []
        self._threads: list[threading.Thread] = []

    def join_queue(self, name: str) -> None:
        def take_turn() -> None:
            with self.queue.turn(fit_batch=name.startswith("fit")):
                self.served.append(name)

        waiting = self._waiting()
        self._threads.append(threading.Thread(target=take_turn))
        self._threads[-1].start()
        deadline = time.monotonic() + 10
        while self._waiting() == waiting:  # only that it waits tells that it has its place
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def finish(self) -> list[str]:
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        return self.served

    def _waiting(self) -> int:
        return len(self.queue._inferences) + len(self.queue._fit_batches)


@pytest.fixture
def line():
    return Line(NetworkQueue(32))


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_one_request_beyond_the_limit_is_refused_until_a_place_is_free(limit):
    queue = NetworkQueue(limit)
    places = [queue.admitted() for _ in range(limit)]
    for place in places:
        place.__enter__()
    rejected = QUEUE_REJECTED._value.get()
    with pytest.raises(Busy, match=f"{limit} requests") as caught, queue.admitted():
        pytest.fail("admitted beyond the limit")
    assert caught.value.retry_after_s >= 1
    assert QUEUE_REJECTED._value.get() == rejected + 1
    places[0].__exit__(None, None, None)
    with queue.admitted(), pytest.raises(Busy), queue.admitted():
        pytest.fail("admitted beyond the limit")
    for place in places[1:]:
        place.__exit__(None, None, None)


def test_a_request_that_fails_gives_its_place_back():
    queue = NetworkQueue(1)
    depth = QUEUE_DEPTH._value.get()
    for _ in range(3):
        with contextlib.suppress(ValueError), queue.admitted():
            assert QUEUE_DEPTH._value.get() == depth + 1
            raise ValueError("broken")
    assert QUEUE_DEPTH._value.get() == depth


def test_one_forward_pass_runs_at_a_time():
    queue = NetworkQueue(32)
    running, most, done = 0, 0, 0

    def work(fit_batch):
        nonlocal running, most, done
        for _ in range(20):
            with queue.turn(fit_batch=fit_batch):
                running += 1
                most = max(most, running)
                time.sleep(0.0005)
                running -= 1
                done += 1

    threads = [threading.Thread(target=work, args=(i % 3 == 0,)) for i in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == 1
    assert done == 180


def test_inferences_are_served_in_the_order_of_their_arrival(line):
    names = [f"inference {i}" for i in range(7)]
    with line.queue.turn():
        for name in names:
            line.join_queue(name)
        assert line.served == []
    assert line.finish() == names


def test_inferences_go_before_the_batches_of_a_fit_that_came_earlier(line):
    with line.queue.turn():
        for name in ["fit 0", "fit 1", "inference 0", "inference 1", "inference 2"]:
            line.join_queue(name)
    assert line.finish() == ["inference 0", "inference 1", "inference 2", "fit 0", "fit 1"]


def test_a_batch_that_waits_gets_in_after_8_inferences(line):
    inferences = [f"inference {i}" for i in range(20)]
    with line.queue.turn(fit_batch=True):
        for name in ["fit 0", "fit 1", "fit 2", *inferences]:
            line.join_queue(name)
    assert line.finish() == [*inferences[:8], "fit 0", *inferences[8:16], "fit 1", *inferences[16:], "fit 2"]


def test_a_batch_that_has_just_arrived_waits_for_inferences_however_many_ran_before_it(line):
    for _ in range(20):
        with line.queue.turn():
            pass
    with line.queue.turn():
        line.join_queue("fit 0")
        line.join_queue("inference 0")
    assert line.finish() == ["inference 0", "fit 0"]


def test_a_free_network_is_had_at_once():
    queue = NetworkQueue(1)
    begin = time.perf_counter()
    for _ in range(100):
        with queue.turn(), pytest.raises(RuntimeError, match="not re-entered"):
            raise RuntimeError("not re-entered")
        with queue.turn(fit_batch=True):
            pass
    assert time.perf_counter() - begin < 1


def test_a_forward_pass_that_fails_frees_the_network(line):
    def fail():
        with line.queue.turn():
            line.join_queue("inference 0")
            line.join_queue("fit 0")
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        fail()
    assert line.finish() == ["inference 0", "fit 0"]
