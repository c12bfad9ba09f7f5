"""A cluster of several nodes on this machine, with Ray's tools for its own tests: nodes can be killed and added."""

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from backend.cluster.local import LOOPBACK, PROXY_ENVIRONMENT, deploy, read_config
from backend.cluster.ray_library import TOKEN, asking_nobody, close, import_ray, own_token
from harness.server import ROOT, free_port

_ON_LOOPBACK: dict[str, Any] = {"node_ip_address": LOOPBACK, "object_store_memory": 128 << 20}
_STOPS_WITHIN_S = 20.0
_STARTS_WITHIN_S = 300.0  # on a machine that tests keep busy


@dataclass
class Nodes:
    """The nodes of a cluster. The head has no cores for replicas, and the only proxy.

    Attributes:
        ray: the connected module.
        cluster: ``ray.cluster_utils.Cluster``.
        port: TCP port of the proxy on loopback.
        folder: of Ray's files.
        others: all nodes but the head.
    """

    ray: Any
    cluster: Any
    port: int
    folder: Path
    others: list[Any] = field(default_factory=list)

    @property
    def address(self) -> str:
        """``http://host:port`` of the proxy."""
        return f"http://{LOOPBACK}:{self.port}"

    def add(self, cores: float) -> None:
        """Add a node, and wait until the others know it.

        Args:
            cores: number of cores for replicas.

        Raises:
            RuntimeError: they do not, in time.
        """
        with asking_nobody(self.folder):
            node = self.cluster.add_node(wait=False, num_cpus=cores, **_ON_LOOPBACK)
        self.others.append(node)
        deadline = time.monotonic() + _STARTS_WITHIN_S
        while node.node_id not in {known["NodeID"] for known in self.ray.nodes() if known["Alive"]}:
            if time.monotonic() > deadline:
                raise RuntimeError(f"a node did not join the cluster in {_STARTS_WITHIN_S:.0f} s")
            time.sleep(0.1)

    def kill(self, node: Any) -> None:
        """Kill all processes of a node at once, as a loss of power does.

        Args:
            node: one of `others`.
        """
        every: list[psutil.Process] = []
        for info in (info for each in node.all_processes.values() for info in each):
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(info.process.pid)
                every += [process, *process.children(recursive=True)]
        for process in every:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGSTOP)  # so that no process notices that another one has ended
        for process in every:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.cluster.worker_nodes.discard(node)
        self.others.remove(node)

    def deploy(self, replicas: int, cores: float, environment: Mapping[str, str] | None = None) -> None:
        """Deploy the service as `deploy/serve.yaml` does it, but for these options, and wait until it is ready.

        Args:
            replicas: number of replicas.
            cores: of each; a fraction lets more replicas share a core.
            environment: settings of the replicas; new ones replace every replica.
        """
        config = read_config(ROOT / "deploy/serve.yaml") | {"proxy_location": "HeadOnly"}
        (deployment,) = config["applications"][0]["deployments"]
        deployment["num_replicas"] = replicas
        deployment["ray_actor_options"] = {"num_cpus": cores}
        if environment:
            deployment["ray_actor_options"]["runtime_env"] = {"env_vars": dict(environment)}
        deploy(self.ray, config, self.port)

    def replicas(self) -> list[psutil.Process]:
        """The processes of all replicas."""
        return [process for process in _processes() if "ServeReplica" in " ".join(_command_line(process))]

    def wait_for_replicas(self, count: int) -> float:
        """Seconds until so many replicas are ready.

        Raises:
            RuntimeError: there are not, in time.
        """
        serve, start = import_ray("ray.serve"), time.monotonic()
        while time.monotonic() < start + _STARTS_WITHIN_S:
            (application,) = serve.status().applications.values()
            (deployment,) = application.deployments.values()
            states = deployment.replica_states
            # Ray counts a replica that was killed until it has noticed it.
            if states.get("RUNNING", 0) == count == sum(states.values()) == len(self.replicas()):
                return time.monotonic() - start
            time.sleep(0.1)
        raise RuntimeError(f"there are no {count} replicas after {_STARTS_WITHIN_S:.0f} s: {deployment}")


@contextlib.contextmanager
def ray_nodes(environment: Mapping[str, str]) -> Iterator[Nodes]:
    """A head without cores for replicas, in child processes of this one. Nothing is deployed yet.

    Args:
        environment: of all processes of the cluster, such as the settings of the service.
    """
    before, others = dict(os.environ), set(_processes())
    with tempfile.TemporaryDirectory(prefix="roi-ray-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        os.environ |= {**environment, **PROXY_ENVIRONMENT, TOKEN: own_token()}
        close()
        ray, tools = import_ray(), import_ray("ray.cluster_utils")
        cluster = tools.Cluster()
        try:
            with asking_nobody(folder):
                cluster.add_node(num_cpus=0, temp_dir=name, include_dashboard=False, **_ON_LOOPBACK)
            ray.init(address=cluster.address, namespace="serve", logging_level="warning", log_to_driver=False)
            yield Nodes(ray, cluster, free_port(), folder)
        finally:
            started = set(_processes()) - others
            ray.shutdown()
            cluster.shutdown()
            _, left = psutil.wait_procs(list(started), timeout=_STOPS_WITHIN_S)
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            os.environ.clear()
            os.environ.update(before)


def _processes() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []
