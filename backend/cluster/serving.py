"""The application on Ray Serve: every replica is the whole service. ``deploy/serve.yaml`` names `application`."""

import asyncio
from typing import Any

from fastapi import FastAPI

from backend.cluster.ray_library import import_ray
from backend.common.config import load_settings

NAME = "Inspection"
_POLL_S = 0.1


class Replica:
    """One replica, as Ray sees it. The application of `build` gets the requests.

    Attributes:
        app: set by ``ray.serve.ingress``.
    """

    app: FastAPI

    async def check_health(self) -> None:
        """Tell Ray whether the replica works; the first call returns when the network is loaded.

        Raises:
            RuntimeError: the service could not load. Ray then shows the reason, and starts another replica.
        """
        lifecycle = self.app.state.lifecycle
        while lifecycle.status == "starting":
            await asyncio.sleep(_POLL_S)
        if lifecycle.status == "failed":
            raise RuntimeError(f"the service could not load: {lifecycle.failure}")


def build() -> FastAPI:
    """Make the application in the process of a replica.

    If ``THREADS`` is not set, it is the number of cores that Ray assigned to the replica.

    Raises:
        ConfigError: a setting cannot be used.
    """
    settings = load_settings()
    cores = int(import_ray().get_runtime_context().get_assigned_resources().get("CPU", 0))
    if not settings.threads and cores:
        settings = settings.model_copy(update={"threads": cores})
    _listen_on_the_address_of_the_node()
    from backend.app import create_app  # its import reads the environment, and exits if that is wrong

    # Ray owns the process, and itself ends a replica after its last request.
    return create_app(settings, takes_signals=False)


def application(_arguments: dict[str, Any]) -> Any:
    """The deployment for Ray. It has `build`, because an application cannot be sent to another process.

    Args:
        _arguments: of the configuration; there are none.

    Returns:
        ``ray.serve.Application``.
    """
    serve = import_ray("ray.serve")
    return serve.deployment(serve.ingress(build)(Replica), name=NAME).bind()


def _listen_on_the_address_of_the_node() -> None:
    """Keep a replica off the interfaces that the node does not use for the cluster.

    Each replica has a port for other deployments, which is not used here. Ray 2.60 opens it on all interfaces, even if
    the address of the node is loopback.
    """
    replica = import_ray("ray.serve._private.replica")
    node = import_ray("ray.util").get_node_ip_address()
    add_port = replica.add_port_to_grpc_server

    def add_port_of_the_node(server: Any, address: str) -> Any:
        return add_port(server, address.replace("[::]", f"[{node}]" if ":" in node else node))

    replica.add_port_to_grpc_server = add_port_of_the_node
