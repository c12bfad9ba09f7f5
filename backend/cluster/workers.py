"""Workers of a cluster: actors, which Ray restarts if one is lost, and the calls to them."""

import contextlib
import math
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import structlog

from backend.cluster.local import check_cores, local_ray
from backend.cluster.ray_library import ADDRESS, TOKEN, TOKEN_PATH, close, import_ray, init
from backend.common.config import Settings, load_settings
from backend.common.errors import BackendError, ConfigError

_SECRETS = frozenset({"api_keys", "infer_keys", "api_keys_file"})
_CALLS_AHEAD = 2  # calls queued for each worker, so that none is idle between two
_TRIES = 3
_LOOK_EVERY_S = 1.0
_LISTENS_WITHIN_S = 10.0  # a cluster that is being started
_SAY_EVERY_S = 60.0
_SAME_WAIT_S = 10.0  # after such a pause, another wait begins

log: Any = structlog.get_logger(__name__)


def settings_to_send(settings: Settings) -> dict[str, Any]:
    """The settings that were set for this process, for workers. Their own environment decides the rest.

    Args:
        settings: of this process.

    Returns:
        Values by name, with absolute paths and without the keys of clients.
    """
    given = settings.model_dump(include=settings.model_fields_set - _SECRETS)
    given["models_dir"] = settings.models_dir.resolve()
    if settings.weights is not None:
        given["weights"] = settings.weights.resolve()
    return given


def worker_settings(sent: Mapping[str, Any]) -> Settings:
    """The settings of a worker. If ``THREADS`` is not set, it is the number of cores that Ray assigned to the worker.

    Args:
        sent: as `settings_to_send` returns them.

    Raises:
        ConfigError: a setting cannot be used on this machine.
    """
    settings = load_settings(**sent)
    if settings.threads:
        return settings
    cores = int(import_ray().get_runtime_context().get_assigned_resources().get("CPU", 0))
    return settings.model_copy(update={"threads": cores})


@contextlib.contextmanager
def connected(cores: int | None = None) -> Iterator[Any]:
    """Connect to the cluster of ``RAY_ADDRESS``; if that is not set, start one on this machine for the block.

    In the block, stdout is stderr: Ray prints what workers print, and its own messages, and a result is neither.

    Args:
        cores: number of cores that a cluster on this machine may assign; None is all that this process may use.

    Yields:
        The module ``ray``, connected.

    Raises:
        ConfigError: Ray is not installed, or the cluster cannot be reached.
    """
    with contextlib.redirect_stdout(sys.stderr):
        if not os.environ.get(ADDRESS):
            with local_ray(cores) as ray:
                yield ray
            return
        with _of_address() as ray:
            yield ray


@contextlib.contextmanager
def _of_address() -> Iterator[Any]:
    close()
    if not (os.environ.get(TOKEN) or os.environ.get(TOKEN_PATH)):
        raise ConfigError(
            f"{ADDRESS} is set, but the token of that cluster is not: set {TOKEN_PATH} to the file of the token"
        )
    ray = import_ray()
    try:
        _wait_for_listener(os.environ[ADDRESS])
        init(ray, address=os.environ[ADDRESS], logging_level="warning", log_to_driver=True)
    except (OSError, RuntimeError, ValueError, import_ray("ray.exceptions").RayError) as exc:
        raise ConfigError(f"the cluster of {ADDRESS}={os.environ[ADDRESS]} cannot be reached: {exc}") from exc
    try:
        yield ray
    finally:
        ray.shutdown()


def _wait_for_listener(address: str) -> None:
    """Wait until something listens at the address of a cluster: Ray itself tries for minutes, and says nothing.

    Args:
        address: ``host:port`` or ``ray://host:port``; others, such as ``auto``, are Ray's to find.

    Raises:
        OSError: nothing listens there after some `_LISTENS_WITHIN_S` seconds.
        ValueError: the port is not a number.
    """
    place = urlsplit(address if "://" in address else f"//{address}")
    if not place.hostname or place.port is None:
        return
    until = time.monotonic() + _LISTENS_WITHIN_S
    while True:
        left_s = until - time.monotonic()
        try:
            socket.create_connection((place.hostname, place.port), timeout=max(left_s, _LOOK_EVERY_S)).close()
        except OSError:
            if left_s < 0:
                raise
            time.sleep(_LOOK_EVERY_S)
        else:
            return


def count_of_workers(ray: Any, count: int | None, cores: int) -> int:
    """The number of workers.

    Args:
        ray: the connected module.
        count: how many are wanted; None is as many as free cores allow.
        cores: number of cores for each.

    Raises:
        ConfigError: the cluster has too few cores.
    """
    slots = sum(n_slots for n_slots, _ in _slots(ray, cores))
    count = count or max(1, min(slots, int(ray.available_resources().get("CPU", 0) // cores)))
    check_cores(ray, count * cores)
    if count > slots:
        raise ConfigError(
            f"the {count} workers need {cores} cores each, on one machine, and the machines of the cluster have room "
            f"for {slots}: use fewer workers, or fewer cores for each (--workers, --cores)"
        )
    return count


def _slots(ray: Any, cores: int) -> list[tuple[int, float]]:
    """For each machine of the cluster: how many workers of so many cores fit on it, and its bytes of memory."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [(int(has.get("CPU", 0) // cores), has.get("memory", 0)) for has in machines]


class _Unreachable(BackendError):
    """A worker cannot be reached: it is lost, and Ray may restart it."""


class _Call(NamedTuple):
    """A call of a worker.

    Attributes:
        number: of the worker.
        method, arguments: of the call.
        n_restarts: how often the worker had been restarted when this call first failed; None if it has not.
    """

    number: int
    method: str
    arguments: tuple[Any, ...]
    n_restarts: int | None = None


class Workers:
    """Actors of one class, each with the same arguments.

    Args:
        ray: the connected module.
        kind: the class.
        count: number of actors; None is as many as free cores allow.
        cores: number of cores for each actor.
        arguments: of the class.

    Attributes:
        meanwhile: called every second while the result of a call is awaited; what it raises ends the waiting.

    Raises:
        ConfigError: the cluster has too few cores.
    """

    def __init__(self, ray: Any, kind: type[Any], count: int | None, cores: int, *arguments: Any) -> None:
        self._ray = ray
        self._cores = cores
        self.meanwhile: Callable[[], None] = lambda: None
        self._waited_at = self._said_at = -math.inf
        count = count_of_workers(ray, count, cores)
        actor = ray.remote(kind).options(num_cpus=cores, max_restarts=-1, max_task_retries=_TRIES)
        self.actors = [actor.remote(*arguments) for _ in range(count)]

    def memory(self) -> float:
        """Bytes that all workers have together, wherever Ray puts them: a machine may get as many as it has cores for.

        Memory of a machine without cores for workers does not count. What else runs in the cluster is not known.
        """
        machines = [(min(slots, len(self.actors)), memory) for slots, memory in _slots(self._ray, self._cores) if slots]
        return len(self.actors) * min((memory / slots for slots, memory in machines), default=0)

    def each(self, method: str, next_call: Callable[[int], tuple[Any, ...] | None]) -> Iterator[tuple[Any, Any]]:
        """Call a method again and again, each time of a worker that is free.

        Args:
            method: name of the method.
            next_call: gets the number of the worker, and returns the arguments of its next call, or None if there is no
                further call.

        Yields:
            The first argument and the result of each call, in the order in which calls end.

        Raises:
            BackendError: see `result`.
        """
        under_way: dict[Any, _Call] = {}

        def begin(number: int) -> None:
            if (arguments := next_call(number)) is not None:
                call = _Call(number, method, arguments)
                under_way[self._start(call)] = call

        for _ in range(_CALLS_AHEAD):
            for number in range(len(self.actors)):
                begin(number)
        while under_way:
            done = self._first_of(list(under_way))
            call = under_way.pop(done)
            try:
                result = self.result(done)
            except _Unreachable as exc:
                call = self._lost(call, exc)
                under_way[self._start(call)] = call
                continue
            yield call.arguments[0], result
            begin(call.number)

    def together(self, method: str, calls: Mapping[int, tuple[Any, ...]]) -> dict[int, Any]:
        """Call a method of some workers at once.

        Args:
            method: name of the method.
            calls: arguments by number of the worker.

        Returns:
            The results, by number of the worker.

        Raises:
            BackendError: see `result`.
        """
        started = [
            (call, self._start(call)) for call in (_Call(number, method, given) for number, given in calls.items())
        ]
        return {call.number: self._answer(call, reference) for call, reference in started}

    def tell(self, method: str, within_s: float) -> int:
        """Call a method of all workers for its effect alone.

        Args:
            method: name of the method, which has no arguments.
            within_s: seconds after which no result is awaited any more.

        Returns:
            How many workers did not do it: some are lost, or it failed.
        """
        references = [getattr(actor, method).remote() for actor in self.actors]
        ended, late = self._ray.wait(references, num_returns=len(references), timeout=within_s)
        n_failed = len(late)
        for reference in ended:
            try:
                self._ray.get(reference)
            except import_ray("ray.exceptions").RayError:
                n_failed += 1
        return n_failed

    def result(self, reference: Any) -> Any:
        """The result of a call.

        Args:
            reference: of the call, as Ray returned it.

        Raises:
            BackendError: the call raised it, or the worker ended `_TRIES` + 1 times during the call.
        """
        errors = import_ray("ray.exceptions")
        self._first_of([reference])
        try:
            return self._ray.get(reference)
        except errors.RayTaskError as exc:
            if isinstance(exc.cause, BackendError):
                raise exc.cause from None
            raise
        except errors.ActorUnavailableError as exc:
            raise _Unreachable(f"a worker ended more than {_TRIES} times during the same call: {_reason(exc)}") from exc
        except errors.RayActorError as exc:
            raise BackendError(
                f"a worker cannot start, or ended {_TRIES + 1} times during the same call: {_reason(exc)}"
            ) from exc
        except errors.RayError as exc:
            raise BackendError(f"Ray lost the result of a worker: {_reason(exc)}") from exc

    def _start(self, call: "_Call") -> Any:
        return getattr(self.actors[call.number], call.method).remote(*call.arguments)

    def _answer(self, call: "_Call", reference: Any) -> Any:
        while True:
            try:
                return self.result(reference)
            except _Unreachable as exc:
                call = self._lost(call, exc)
                reference = self._start(call)

    def _lost(self, call: "_Call", exc: BackendError) -> "_Call":
        """Prepare a call to be started again. Ray gives a call up after seconds, and notices a lost machine only later.

        Raises:
            BackendError: it is `exc`, and the worker was restarted more than `_TRIES` times since the call failed.
        """
        known = self._known()
        if known is not None:
            n_restarts = known.get(self.actors[call.number]._actor_id.hex(), {}).get("NumRestarts", 0)
            if call.n_restarts is None:
                call = call._replace(n_restarts=n_restarts)
            elif n_restarts - call.n_restarts > _TRIES:
                raise exc
        self._wait(n_unreachable=1)
        time.sleep(_LOOK_EVERY_S)
        return call

    def _first_of(self, references: Sequence[Any]) -> Any:
        """The first of some calls that ends. Ray lets them wait, as long as the cluster has no cores for a worker."""
        while True:
            ended, _ = self._ray.wait(references, num_returns=1, timeout=_LOOK_EVERY_S)
            if ended:
                return ended[0]
            self._wait()

    def _wait(self, n_unreachable: int = 0) -> None:
        """Look for a cancel, and warn every minute of waiting if some of the workers do not run.

        Args:
            n_unreachable: workers that cannot be reached, whatever Ray knows of them.
        """
        self.meanwhile()
        now = time.monotonic()
        if now - self._waited_at > _SAME_WAIT_S:
            self._said_at = now
        self._waited_at = now
        if now - self._said_at >= _SAY_EVERY_S:
            self._said_at = now
            self._say_what_is_missing(n_unreachable)

    def _known(self) -> dict[str, Any] | None:
        """What Ray knows of all actors, by id; None if its control store does not answer."""
        try:
            known: dict[str, Any] = import_ray("ray._private.state").actors()
        except import_ray("ray.exceptions").RayError:
            return None
        return known

    def _say_what_is_missing(self, n_unreachable: int) -> None:
        known = self._known()
        n_dead = 0
        if known is not None:
            states = [known.get(actor._actor_id.hex(), {}).get("State") for actor in self.actors]
            n_dead = sum(state != "ALIVE" for state in states)
        if n_missing := max(n_unreachable, n_dead):
            log.warning(
                "workers.missing",
                n_missing=n_missing,
                n_workers=len(self.actors),
                hint="they start, or wait until the cluster has free cores for them; then the command goes on",
            )


def _reason(exc: BaseException) -> str:
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    errors = [line for line in lines if "Error: " in line]
    return (errors or lines or [type(exc).__name__])[-1]
