"""Workers of a cluster: actors, which Ray restarts if one is lost, and the calls to them."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from backend.cluster.local import check_cores, local_ray
from backend.cluster.ray_library import TOKEN, TOKEN_PATH, close, import_ray
from backend.common.config import Settings, load_settings
from backend.common.errors import BackendError, ConfigError

_ADDRESS = "RAY_ADDRESS"
_SECRETS = frozenset({"api_keys", "infer_keys", "api_keys_file"})
_CALLS_AHEAD = 2  # calls queued for each worker, so that none is idle between two
_TRIES = 3


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
        if not os.environ.get(_ADDRESS):
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
            f"{_ADDRESS} is set, but the token of that cluster is not: set {TOKEN_PATH} to the file of the token"
        )
    ray = import_ray()
    try:
        ray.init(address=os.environ[_ADDRESS], logging_level="warning", log_to_driver=True)
    except (ConnectionError, RuntimeError, ValueError) as exc:
        raise ConfigError(f"the cluster of {_ADDRESS}={os.environ[_ADDRESS]} cannot be reached: {exc}") from exc
    try:
        yield ray
    finally:
        ray.shutdown()


def count_of_workers(ray: Any, count: int | None, cores: int) -> int:
    """The number of workers.

    Args:
        ray: the connected module.
        count: how many are wanted; None is as many as the cluster has cores for.
        cores: number of cores for each.

    Raises:
        ConfigError: the cluster has too few cores.
    """
    count = count or max(1, int(ray.cluster_resources().get("CPU", 0) // cores))
    check_cores(ray, count * cores)
    return count


class Workers:
    """Actors of one class, each with the same arguments.

    Args:
        ray: the connected module.
        kind: the class.
        count: number of actors; None is as many as the cluster has cores for.
        cores: number of cores for each actor.
        arguments: of the class.

    Raises:
        ConfigError: the cluster has too few cores.
    """

    def __init__(self, ray: Any, kind: type[Any], count: int | None, cores: int, *arguments: Any) -> None:
        self._ray = ray
        count = count_of_workers(ray, count, cores)
        actor = ray.remote(kind).options(num_cpus=cores, max_restarts=-1, max_task_retries=_TRIES)
        self.actors = [actor.remote(*arguments) for _ in range(count)]

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
        under_way: dict[Any, tuple[int, Any]] = {}

        def begin(number: int) -> None:
            if (call := next_call(number)) is not None:
                under_way[getattr(self.actors[number], method).remote(*call)] = (number, call[0])

        for _ in range(_CALLS_AHEAD):
            for number in range(len(self.actors)):
                begin(number)
        while under_way:
            (done, *_), _ = self._ray.wait(list(under_way), num_returns=1)
            number, what = under_way.pop(done)
            yield what, self.result(done)
            begin(number)

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
        references = {number: getattr(self.actors[number], method).remote(*call) for number, call in calls.items()}
        return {number: self.result(reference) for number, reference in references.items()}

    def result(self, reference: Any) -> Any:
        """The result of a call.

        Args:
            reference: of the call, as Ray returned it.

        Raises:
            BackendError: the call raised it, or the worker ended `_TRIES` + 1 times during the call.
        """
        errors = import_ray("ray.exceptions")
        try:
            return self._ray.get(reference)
        except errors.RayTaskError as exc:
            if isinstance(exc.cause, BackendError):
                raise exc.cause from None
            raise
        except errors.RayActorError as exc:
            raise BackendError(
                f"a worker cannot start, or ended {_TRIES + 1} times during the same call: {_reason(exc)}"
            ) from exc


def _reason(exc: BaseException) -> str:
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    errors = [line for line in lines if "Error: " in line]
    return (errors or lines or [type(exc).__name__])[-1]
