"""``python -m backend serve`` starts the service; ``python -m backend weights`` finds and verifies the weights."""

import argparse
import socket
import sys
from collections.abc import Sequence

import uvicorn

from backend import __version__
from backend.config import Settings, load_settings
from backend.errors import ConfigError
from backend.telemetry import configure_logging
from backend.weights import find_weights


class _Server(uvicorn.Server):
    """Says what to try next once the service answers."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if not self.should_exit:
            host = "localhost" if self.config.host in ("0.0.0.0", "::") else self.config.host  # noqa: S104
            address = f"http://{f'[{host}]' if ':' in host else host}:{self.servers[0].sockets[0].getsockname()[1]}"
            print(
                f"\nReady at {address}. Next:",
                f"  {f'curl {address}/health':<38}is it well?",
                f"  {f'{address}/docs':<38}every endpoint, with examples to try",
                f"  {'make demo':<38}fit, calibrate and inspect real images\n",
                sep="\n",
                file=sys.stderr,
                flush=True,
            )


def serve(settings: Settings) -> None:
    """Serve on ``HOST:PORT`` until stopped.

    Raises:
        ConfigError: the address cannot be bound.
    """
    server = _Server(uvicorn.Config("backend.app:app", host=settings.host, port=settings.port, log_config=None))
    try:
        server.run()
    except KeyboardInterrupt:
        return  # Ctrl-C is how to stop it
    except SystemExit as exc:  # uvicorn's way to say that it did not start; the log has the reason
        if server.lifespan.should_exit:
            raise
        raise ConfigError(f"cannot listen on HOST={settings.host} PORT={settings.port}") from exc
    if not server.started:
        sys.exit(3)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command of the command line."""
    parser = argparse.ArgumentParser(prog="python -m backend", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("command", choices=("serve", "weights"))
    command = parser.parse_args(arguments).command
    try:
        settings = load_settings()
        configure_logging(settings.log_level, settings.log_format)
        if command == "serve":
            serve(settings)
        else:
            weights = find_weights(settings)
            print(f"{weights.path} ({weights.source}, sha256 {weights.sha256})")
    except ConfigError as exc:
        sys.exit(str(exc))


if __name__ == "__main__":
    main()
