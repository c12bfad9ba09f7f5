"""Ray on this machine only: with its own token, every port on loopback, and no process left when it ends."""

import contextlib
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import yaml

from backend.cluster.ray_library import ADDRESS, TOKEN, TOKEN_PATH, asking_nobody, close, import_ray, init, own_token
from backend.common.errors import ConfigError
from backend.common.machine import usable_cores

LOOPBACK = "127.0.0.1"
_NAMESPACE = "serve"
_OBJECT_STORE_BYTES = 256 << 20
_ENDS_WITHIN_S = 20.0
_POLL_S = 0.2
# Ray's own errors get the shape of every error.
PROXY_ENVIRONMENT = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "backend.cluster.proxy_errors:middlewares"}
_METRICS = "PROMETHEUS_MULTIPROC_DIR"


@contextlib.contextmanager
def local_ray(cores: int | None = None, *, serves: bool = False) -> Iterator[Any]:
    """Run Ray in child processes of this one, for the duration of the block.

    Args:
        cores: number of cores that Ray may assign; None is all that this process may use.
        serves: whether Ray Serve runs on it: then the proxy and the metrics are set up as well.

    Yields:
        The module ``ray``, connected.

    Raises:
        ConfigError: Ray is not installed.
    """
    with (
        tempfile.TemporaryDirectory(prefix="roi-ray-", ignore_cleanup_errors=True) as folder,
        _environment_as_before(),
    ):
        close()
        for name in (ADDRESS, TOKEN_PATH):  # of another cluster
            os.environ.pop(name, None)
        os.environ[TOKEN] = own_token()
        if serves:
            os.environ.update(PROXY_ENVIRONMENT)
            metrics = Path(folder) / "metrics"
            metrics.mkdir()
            os.environ.setdefault(_METRICS, str(metrics))  # for the sum of all replicas in /metrics
        ray = import_ray()
        others = _children()
        try:
            with asking_nobody(Path(folder)):
                init(
                    ray,
                    num_cpus=cores or usable_cores(),
                    include_dashboard=False,
                    namespace=_NAMESPACE,
                    object_store_memory=_OBJECT_STORE_BYTES,
                    logging_level="warning",
                    _node_ip_address=LOOPBACK,
                    _temp_dir=folder,
                )
            yield ray
        finally:
            started = _children() - others
            ray.shutdown()
            _end(started)


@contextlib.contextmanager
def _environment_as_before() -> Iterator[None]:
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def _end(processes: set[psutil.Process]) -> None:
    """Wait for processes that were asked to end, and kill those that have not ended after `_ENDS_WITHIN_S` seconds."""
    _, left = psutil.wait_procs(list(processes), timeout=_ENDS_WITHIN_S)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def read_config(path: Path) -> dict[str, Any]:
    """Read a configuration file of Ray Serve, checked by Ray's own schema.

    Args:
        path: of a YAML file.

    Returns:
        The fields of ``ray.serve.schema.ServeDeploySchema`` that the file sets.

    Raises:
        ConfigError: the file cannot be read, or is not a configuration of Ray Serve.
    """
    schema = import_ray("ray.serve.schema").ServeDeploySchema
    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
        return dict(schema.model_validate(read).model_dump(exclude_unset=True))
    except OSError as exc:
        raise ConfigError(f"{path}: the file cannot be read ({exc.strerror})") from exc
    except (yaml.YAMLError, ValueError) as exc:
        raise ConfigError(f"{path}: the file is not a valid configuration of Ray Serve ({exc})") from exc


def deploy(ray: Any, config: dict[str, Any], port: int) -> None:
    """Deploy the applications of a configuration, and wait until every replica is ready.

    Args:
        ray: the connected module.
        config: as `read_config` returns it.
        port: TCP port of the proxy on loopback.

    Raises:
        ConfigError: the cluster has too few cores, or the application cannot be deployed; the message says why.
    """
    check_cores(ray, sum(map(_cores_of, config["applications"])))
    serve = import_ray("ray.serve")
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    options = {**config.get("http_options", {}), "host": LOOPBACK, "port": port}
    schema = import_ray("ray.serve.schema").ServeDeploySchema
    client = import_ray("ray.serve._private.api").serve_start(
        http_options=options,
        proxy_location=config.get("proxy_location", "EveryNode"),
        global_logging_config=config.get("logging_config"),
    )
    client.deploy_apps(schema.model_validate({**config, "http_options": options}))
    while True:
        statuses = serve.status().applications
        if all(str(status.status.value) == "RUNNING" for status in statuses.values()) and statuses:
            return
        for name, status in statuses.items():
            if str(status.status.value) in ("DEPLOY_FAILED", "UNHEALTHY"):
                raise ConfigError(f"{name} cannot be deployed: {_reason(status)}")
        time.sleep(_POLL_S)


def _reason(status: Any) -> str:
    """The last line of Ray's messages; if some lines name an exception, the last of these."""
    messages = [status.message, *(deployment.message for deployment in status.deployments.values())]
    lines = [line.strip() for message in messages for line in message.splitlines() if line.strip()]
    errors = [line for line in lines if "Error: " in line]
    return str((errors or lines or ["Ray gives no reason"])[-1])


def _cores_of(application: dict[str, Any]) -> float:
    total = 0.0
    for deployment in application.get("deployments", ()):
        options, scaling = deployment.get("ray_actor_options") or {}, deployment.get("autoscaling_config") or {}
        replicas = deployment.get("num_replicas", 1)
        at_first = scaling.get("min_replicas", 1) if scaling or replicas == "auto" else replicas
        total += float(options.get("num_cpus", 1)) * float(at_first or 0)
    return total


def check_cores(ray: Any, needed: float) -> None:
    """Refuse a cluster that is too small: Ray itself would wait without a message.

    Args:
        ray: the connected module.
        needed: number of cores that all replicas or workers need together.

    Raises:
        ConfigError: the cluster has fewer.
    """
    cores = ray.cluster_resources().get("CPU", 0)
    if needed > cores:
        raise ConfigError(
            f"the replicas or workers need {needed:g} cores together, but the cluster has {cores:g}: "
            "use fewer of them, or fewer cores for each (num_cpus or --cores)"
        )
