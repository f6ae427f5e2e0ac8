"""What stands before optuna-dashboard, which asks for no password, answers any name and obeys any page's requests.

A page of any site that is open in a browser on this machine can send requests to the loopback interface. So the
guard answers only to names that such a page cannot take (DNS rebinding), lets nothing be written unless told to, and
then only by the dashboard's own pages.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

READING = ("GET", "HEAD")
READ_ONLY = (
    "This dashboard is read-only. To rename, annotate or delete here, start it again with "
    "`mfas-optuna dashboard --allow-writes`."
)
_OPEN_TO_ALL = "access-control-allow-origin"
_ON_ALL = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "SAMEORIGIN"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
)
_ON_ARTIFACTS = (("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox"),)
"""An SVG that is opened as a page of its own may hold a script; it would be one of the dashboard's own pages."""


class Guard:
    """A WSGI application that passes on to another what may be asked of it."""

    def __init__(
        self, application: WSGIApplication, *, names: Iterable[str] = (), is_exposed: bool = False, allow_writes: bool
    ) -> None:
        """Stand before an application.

        Args:
            application: What answers.
            names: Names of this machine to be answered to, besides those of the loopback interface.
            is_exposed: Whether others reach the server: then any address, which is no name, is answered to as well.
            allow_writes: Whether requests that change something are passed on, from the application's own pages.
        """
        self._application = application
        self._names = {"localhost", *(name.lower() for name in names)}
        self._is_exposed = is_exposed
        self._allow_writes = allow_writes

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request, or refuse it with the reason as the dashboard's own errors have it."""
        host = str(environ.get("HTTP_HOST", ""))
        if not self._is_ours(_name_of(host)):
            return _refuse(
                start_response,
                "421 Misdirected Request",
                f"Expected a name of this machine (localhost, 127.0.0.1), found {host!r}. Open the address that "
                "`mfas-optuna dashboard` printed.",
            )
        if environ["REQUEST_METHOD"] not in READING:
            if not self._allow_writes:
                return _refuse(start_response, "403 Forbidden", READ_ONLY)
            why = _why_foreign(environ, host)
            if why:
                return _refuse(start_response, "403 Forbidden", f"Only the dashboard's own pages may write: {why}.")
        return self._application(environ, _with_headers(start_response, str(environ.get("PATH_INFO", ""))))

    def _is_ours(self, name: str) -> bool:
        try:
            return ipaddress.ip_address(name).is_loopback or self._is_exposed
        except ValueError:
            return name in self._names


def _name_of(host: str) -> str:
    """Return the name in a Host header, without its port: that of a tunnel is another than the server's."""
    try:
        return (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        return ""


def _why_foreign(environ: WSGIEnvironment, host: str) -> str:
    """Return why a request that writes may come from a page of another site; empty when it cannot."""
    site, origin = environ.get("HTTP_SEC_FETCH_SITE"), environ.get("HTTP_ORIGIN")
    if site not in (None, "same-origin", "none"):
        return f"this request comes from a page elsewhere (Sec-Fetch-Site: {site})"
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        return f"this request comes from {origin}, not from {host}"
    kind = str(environ.get("CONTENT_TYPE", "")).partition(";")[0].strip().lower()
    has_body = environ.get("CONTENT_LENGTH", "") not in ("", "0") or "HTTP_TRANSFER_ENCODING" in environ
    is_unsigned_form = environ["REQUEST_METHOD"] == "POST" and site is None and origin is None
    if (has_body or is_unsigned_form) and kind != "application/json":  # What a form of any page can send.
        return f"expected content of type application/json, found {kind or 'none'}"
    return ""


def _refuse(start_response: StartResponse, status: str, reason: str) -> list[bytes]:
    body = json.dumps({"reason": reason}).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *_ON_ALL]
    start_response(status, headers)
    return [body]


def _with_headers(start_response: StartResponse, path: str) -> Callable[..., Any]:
    """Return a `start_response` that keeps answers from pages of other sites."""
    added = _ON_ALL + (_ON_ARTIFACTS if path.startswith("/artifacts/") else ())

    def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
        kept = [item for item in headers if item[0].lower() != _OPEN_TO_ALL]
        return start_response(status, [*kept, *added], *error)

    return start
