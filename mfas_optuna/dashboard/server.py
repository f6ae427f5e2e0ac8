"""optuna-dashboard on the loopback interface, behind the guard."""

from __future__ import annotations

import errno
import getpass
import ipaddress
import socket
import socketserver
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from mfas_optuna import storage as database
from mfas_optuna.dashboard.drawings import Drawings, redraw_from
from mfas_optuna.dashboard.guard import Guard
from mfas_optuna.errors import DashboardError

HOST = "127.0.0.1"
PORT = 8080
N_PORTS = 20
"""So many ports from PORT on are tried before any free one is taken."""
_EVERYWHERE = ("0.0.0.0", "::")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a dashboard can be reached.

    Attributes:
        host: Address that the server is bound to.
        port: Its port.
        machine: Name of this machine.
        user: Name of this user.
        is_exposed: Whether other machines reach it.
    """

    host: str
    port: int
    machine: str
    user: str
    is_exposed: bool

    @property
    def url(self) -> str:
        """What to open in a browser, on this machine or, when it is exposed, on any."""
        name = self.machine if self.host in _EVERYWHERE else self.host
        return f"http://{_bracketed(name)}:{self.port}"

    @property
    def tunnel(self) -> str:
        """The command that brings it to another machine; its address there is http://localhost and the port."""
        return f"ssh -N -L {self.port}:{_bracketed(self.host)}:{self.port} {self.user}@{self.machine}"


def serve_dashboard(
    url: str,
    artifacts: Path,
    announce: Callable[[Address], None],
    *,
    host: str = HOST,
    port: int | None = None,
    allow_writes: bool = False,
    expose: bool = False,
) -> None:
    """Serve the dashboard of a database until the process is stopped.

    Args:
        url: The database.
        artifacts: Folder of the drawings.
        announce: Told the address once it can be opened.
        host: Name or address of the interface to be bound to.
        port: 1 to 65535; None: PORT, or the next free one.
        allow_writes: Whether the dashboard's pages may change and delete studies.
        expose: Whether `host` may be one that other machines reach.

    Raises:
        DashboardError: `host` is reached by others and `expose` is false, or it is none of this machine's, or `port`
            is taken.
        StorageError: The database does not exist or cannot be reached.
    """
    is_exposed = not _is_loopback(host)
    if is_exposed and not expose:
        raise DashboardError(
            f"--host: expected an address of the loopback interface ({HOST}), found {host}, which other machines "
            "reach: the dashboard asks for no password, and whoever reaches it reads every study of the database"
            f"{', changes it and deletes it' if allow_writes else ''}. Use an SSH tunnel, or add "
            "--expose-without-password."
        )
    database.check_exists(url)
    import optuna_dashboard  # Takes a second to import.

    machine = socket.gethostname()
    names = (machine, socket.getfqdn(), host) if is_exposed else ()
    storage = database.open_storage(url)
    application = Guard(
        optuna_dashboard.wsgi(storage, artifact_store=Drawings(artifacts, redraw_from(storage))),
        names=names,
        is_exposed=is_exposed,
        allow_writes=allow_writes,
    )
    with _bound(host, port) as server:
        server.set_app(application)
        announce(Address(host, server.server_port, machine, getpass.getuser(), is_exposed))
        server.serve_forever()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True
    allow_reuse_port = False  # Two dashboards on one port would answer in turns.

    def __init__(self, host: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _QuietHandler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that has closed its connection."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of each request."""


def _bound(host: str, port: int | None) -> _Server:
    """Return a server bound to a port: the one that was asked for, or a free one."""
    for candidate in (port,) if port is not None else (*range(PORT, PORT + N_PORTS), 0):
        try:
            return _Server(host, candidate)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and port is None:
                continue
            if error.errno == errno.EADDRINUSE:
                what = f"--port: {_bracketed(host)}:{port} is taken. Choose another, or leave it out to get a free one."
            else:
                what = f"--host: cannot be bound to {host}, port {candidate}: {error.strerror}. Name another."
            raise DashboardError(what) from error
    raise AssertionError("unreachable")  # Port 0 is any free one.
