"""optuna-dashboard on the loopback interface."""

from __future__ import annotations

import socketserver
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from mfas_optuna import storage as database
from mfas_optuna.errors import StorageError

HOST = "127.0.0.1"


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of each request."""


def serve_dashboard(url: str, port: int) -> None:
    """Serve the dashboard of a database until the process is stopped.

    It is bound to the loopback interface alone, since it asks for no password and answers any page's requests.

    Raises:
        StorageError: The database does not exist or cannot be reached, or the port is taken.
    """
    import optuna_dashboard  # Takes a second to import.

    database.check_exists(url)
    application = optuna_dashboard.wsgi(database.open_storage(url))
    try:
        server = make_server(HOST, port, application, server_class=_Server, handler_class=_QuietHandler)
    except OSError as error:
        raise StorageError(f"--port: {HOST}:{port} cannot be used: {error.strerror}. Choose another.") from error
    with server:
        server.serve_forever()
