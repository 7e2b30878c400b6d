"""Runs the application on a socket until the process is asked to end."""

from __future__ import annotations

import socket
import webbrowser
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from unsee.errors import ConfigError

# Seconds that an answer in progress may take once the process is asked to end.
GRACE = 2


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Args:
        host: An address or a name of this machine.
        port: The port; 0 takes a free one.

    Raises:
        ConfigError: If it cannot be listened on.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        opened = socket.socket(family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"--host {host} is no address of this machine ({error}). Type --host 127.0.0.1."
        ) from error
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(128)
    except OSError as error:
        opened.close()
        raise ConfigError(
            f"port {port} of {host} cannot be used ({error.strerror or error}). Type another "
            "--port, or --port 0 for a free one."
        ) from error
    return opened


def address_of(opened: socket.socket, host: str) -> str:
    """The address that a browser opens.

    Args:
        opened: The listening socket.
        host: The host that it listens on.
    """
    port = opened.getsockname()[1]
    shown = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{port}/"


def serve(app: ASGIApp, opened: socket.socket, on_start: Callable[[], None]) -> None:
    """Answers requests until SIGINT or SIGTERM, which are raised again in the end.

    Args:
        app: The application.
        opened: The listening socket.
        on_start: Called once requests are answered.
    """
    # Access logs would hold who asked when; bodies are in none.
    config = uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        lifespan="off",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
        timeout_keep_alive=30,
    )
    _Server(config, on_start).run(sockets=[opened])


class _Server(uvicorn.Server):
    """A server that says when it answers requests."""

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts as uvicorn does, then tells so."""
        await super().startup(sockets=sockets)
        self._on_start()


def open_browser(url: str) -> bool:
    """Opens the page in the user's browser; False where there is none."""
    return webbrowser.open(url)
