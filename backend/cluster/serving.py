"""The application on Ray Serve: unchanged, and whole in every replica. ``deploy/serve.yaml`` names `application`."""

import asyncio
from typing import Any

from fastapi import FastAPI

from backend.cluster.ray_library import import_ray
from backend.common.config import load_settings

NAME = "Inspection"
_POLL_S = 0.1


class Replica:
    """One replica, as Ray sees it. Requests go to the application, which `build` makes.

    Attributes:
        app: set by ``ray.serve.ingress``.
    """

    app: FastAPI

    async def check_health(self) -> None:
        """Tell Ray whether the replica can work; the first answer comes once the network is loaded.

        Raises:
            RuntimeError: it cannot be loaded. Ray then shows why, and tries another replica.
        """
        lifecycle = self.app.state.lifecycle
        while lifecycle.status == "starting":
            await asyncio.sleep(_POLL_S)
        if lifecycle.status == "failed":
            raise RuntimeError(f"the service could not load: {lifecycle.failure}")


def build() -> FastAPI:
    """The application, in the process of a replica, which uses as many threads as Ray counts for it.

    Raises:
        ConfigError: a setting cannot be used.
    """
    settings = load_settings()
    cores = int(import_ray().get_runtime_context().get_assigned_resources().get("CPU", 0))
    if not settings.threads and cores:
        settings = settings.model_copy(update={"threads": cores})
    _listen_on_the_address_of_the_node()
    from backend.app import create_app  # it reads the environment, too, and ends the process where that is wrong

    # The process is Ray's, which ends a replica after its last request by itself.
    return create_app(settings, takes_signals=False)


def application(_arguments: dict[str, Any]) -> Any:
    """What Ray deploys: a builder, since neither an application nor a network can be sent to another process.

    Returns:
        ``ray.serve.Application``.
    """
    serve = import_ray("ray.serve")
    return serve.deployment(serve.ingress(build)(Replica), name=NAME).bind()


def _listen_on_the_address_of_the_node() -> None:
    """Keep a replica off the interfaces that the node does not use for the cluster.

    Replicas have a port for one another, which is for deployments of several parts and not used here. Ray 2.60 opens it
    on all interfaces, also where the node's address is loopback.
    """
    replica = import_ray("ray.serve._private.replica")
    node = import_ray("ray.util").get_node_ip_address()
    add_port = replica.add_port_to_grpc_server

    def add_port_of_the_node(server: Any, address: str) -> Any:
        return add_port(server, address.replace("[::]", f"[{node}]" if ":" in node else node))

    replica.add_port_to_grpc_server = add_port_of_the_node
