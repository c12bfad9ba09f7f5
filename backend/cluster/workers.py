"""Workers of a cluster: actors that Ray starts anew where one is lost, and who asks them."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from backend.cluster.local import check_cores, local_ray
from backend.cluster.ray_library import TOKEN, TOKEN_PATH, close, import_ray
from backend.common.config import Settings, load_settings
from backend.common.errors import BackendError, ConfigError

_ADDRESS = "RAY_ADDRESS"
_SECRETS = frozenset({"api_keys", "infer_keys", "api_keys_file"})
_CALLS_AHEAD = 2  # of each worker, so that none waits for the next
_TRIES = 3


def settings_to_send(settings: Settings) -> dict[str, Any]:
    """What this process was set to, for workers, whose own environment decides the rest.

    Args:
        settings: of this process; keys of clients are left out.
    """
    given = settings.model_dump(include=settings.model_fields_set - _SECRETS)
    given["models_dir"] = settings.models_dir.resolve()
    if settings.weights is not None:
        given["weights"] = settings.weights.resolve()
    return given


def worker_settings(sent: Mapping[str, Any]) -> Settings:
    """The settings of a worker, which uses as many threads as Ray counts for it.

    Args:
        sent: what `settings_to_send` gave.

    Raises:
        ConfigError: one cannot be used on this machine.
    """
    settings = load_settings(**sent)
    if settings.threads:
        return settings
    cores = int(import_ray().get_runtime_context().get_assigned_resources().get("CPU", 0))
    return settings.model_copy(update={"threads": cores})


@contextlib.contextmanager
def connected(cores: int | None = None) -> Iterator[Any]:
    """The cluster of ``RAY_ADDRESS``, or, where that is not set, one of this machine for the time of the block.

    Args:
        cores: that a cluster of this machine may count on; None is all that this process may use.

    Raises:
        ConfigError: Ray is not installed, or the cluster cannot be reached.
    """
    if not os.environ.get(_ADDRESS):
        with local_ray(cores) as ray:
            yield ray
        return
    close()
    if not (os.environ.get(TOKEN) or os.environ.get(TOKEN_PATH)):
        raise ConfigError(f"{_ADDRESS} is set, and its token is not: set {TOKEN_PATH} to the file that has it")
    ray = import_ray()
    try:
        ray.init(address=os.environ[_ADDRESS], logging_level="warning", log_to_driver=True)
    except (ConnectionError, RuntimeError, ValueError) as exc:
        raise ConfigError(f"the cluster of {_ADDRESS}={os.environ[_ADDRESS]} cannot be reached: {exc}") from exc
    try:
        yield ray
    finally:
        ray.shutdown()


class Workers:
    """Actors of one class, each with the same arguments.

    Args:
        ray: connected.
        kind: the class.
        count: how many; None is as many as the cluster has cores for.
        cores: of each.
        arguments: of the class.

    Raises:
        ConfigError: the cluster has too few cores.
    """

    def __init__(self, ray: Any, kind: type[Any], count: int | None, cores: int, *arguments: Any) -> None:
        self._ray = ray
        count = count or max(1, int(ray.cluster_resources().get("CPU", 0) // cores))
        check_cores(ray, count * cores)
        actor = ray.remote(kind).options(num_cpus=cores, max_restarts=-1, max_task_retries=_TRIES)
        self.actors = [actor.remote(*arguments) for _ in range(count)]

    def each(self, method: str, next_call: Callable[[], tuple[Any, ...] | None]) -> Iterator[tuple[Any, Any]]:
        """Call a method of whichever worker is free.

        Args:
            method: its name.
            next_call: gives the arguments of the next call; None where there is none.

        Yields:
            The first argument and the result of each call, as they come.

        Raises:
            BackendError: what a call raised.
        """
        under_way: dict[Any, tuple[Any, Any]] = {}

        def begin(actor: Any) -> None:
            if (call := next_call()) is not None:
                under_way[getattr(actor, method).remote(*call)] = (actor, call[0])

        for _ in range(_CALLS_AHEAD):
            for actor in self.actors:
                begin(actor)
        while under_way:
            (done, *_), _ = self._ray.wait(list(under_way), num_returns=1)
            actor, what = under_way.pop(done)
            yield what, self.result(done)
            begin(actor)

    def result(self, reference: Any) -> Any:
        """What a call gave.

        Raises:
            BackendError: what it raised; or that its worker was lost again and again.
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
                f"a worker ended {_TRIES + 1} times in the middle of the same work, or cannot start: {_reason(exc)}"
            ) from exc


def _reason(exc: BaseException) -> str:
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    errors = [line for line in lines if "Error: " in line]
    return (errors or lines or [type(exc).__name__])[-1]
