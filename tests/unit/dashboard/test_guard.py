"""What the guard passes on to the dashboard, and what it refuses."""

from __future__ import annotations

import json
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from mfas_optuna.dashboard import Guard

JSON = "application/json"


def answering(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Access-Control-Allow-Origin", "*")])
    return [b"answered"]


def ask(guard: Guard, method: str = "GET", path: str = "/", **headers: str) -> tuple[str, dict[str, str], bytes]:
    """Return status, headers and body of an answer; headers are given as WSGI names them."""
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    environ |= {"REQUEST_METHOD": method, "PATH_INFO": path, "HTTP_HOST": "127.0.0.1:8080", **headers}
    seen: list[Any] = []
    body = b"".join(guard(environ, lambda status, headers, *_: seen.append((status, headers))))  # type: ignore[arg-type,misc,return-value]
    [(status, items)] = seen
    return status, dict(items), body


def is_passed_on(guard: Guard, method: str = "GET", **headers: str) -> bool:
    status, _, body = ask(guard, method, **headers)
    assert (status, body) == ("200 OK", b"answered") or "reason" in json.loads(body)
    return status == "200 OK"


READS = Guard(answering, allow_writes=False)
WRITES = Guard(answering, allow_writes=True)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:8080", "localhost:8080", "LOCALHOST", "localhost.:1", "localhost:9999", "[::1]:8080", "127.0.0.2"],
)
def test_names_of_the_loopback_interface_are_answered_to_at_any_port(host: str) -> None:
    assert is_passed_on(READS, HTTP_HOST=host)


@pytest.mark.parametrize(
    "host",
    [
        "", "evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.7:8080",
        "box", "[::1", "evil.example@localhost.evil.example", "localhost:evil.example", "0.0.0.0:8080",
    ],
)  # fmt: skip
def test_no_other_name_is(host: str) -> None:
    status, headers, body = ask(READS, HTTP_HOST=host)
    if host == "localhost:evil.example":  # Its name is localhost, whatever its port is called.
        assert status == "200 OK"
        return
    assert status == "421 Misdirected Request"
    assert headers["Content-Type"] == JSON
    assert "Open the address that" in json.loads(body)["reason"]


def test_an_exposed_server_answers_to_its_names_and_to_any_address_but_to_no_other_name() -> None:
    guard = Guard(answering, names=("Box", "box.lab.example"), is_exposed=True, allow_writes=False)
    for host in ("box:8080", "box.lab.example", "10.0.0.7:8080", "[fe80::1]:8080", "localhost:1"):
        assert is_passed_on(guard, HTTP_HOST=host)
    assert not is_passed_on(guard, HTTP_HOST="evil.example")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get"])
def test_nothing_is_written_unless_it_is_allowed(method: str) -> None:
    status, _, body = ask(READS, method, CONTENT_TYPE=JSON, HTTP_ORIGIN="http://127.0.0.1:8080")
    assert status == "403 Forbidden"
    assert "--allow-writes" in json.loads(body)["reason"]
    assert is_passed_on(READS, "HEAD")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_the_dashboards_own_pages_write_where_it_is_allowed(method: str) -> None:
    own = {"HTTP_ORIGIN": "http://127.0.0.1:8080", "HTTP_SEC_FETCH_SITE": "same-origin"}
    assert is_passed_on(WRITES, method, CONTENT_TYPE=f"{JSON}; charset=utf-8", CONTENT_LENGTH="2", **own)
    assert is_passed_on(WRITES, method, **own)
    assert is_passed_on(WRITES, method, CONTENT_TYPE=JSON, CONTENT_LENGTH="2")  # A program, not a page.


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"HTTP_SEC_FETCH_SITE": "cross-site"}, "Sec-Fetch-Site: cross-site"),
        ({"HTTP_SEC_FETCH_SITE": "same-site"}, "Sec-Fetch-Site: same-site"),  # Another port of localhost.
        ({"HTTP_SEC_FETCH_SITE": "same-origin", "HTTP_ORIGIN": "http://evil.example"}, "http://evil.example"),
        ({"HTTP_ORIGIN": "http://127.0.0.1:9090"}, "not from 127.0.0.1:8080"),
        ({"HTTP_ORIGIN": "null"}, "null"),
        ({"CONTENT_TYPE": "text/plain", "CONTENT_LENGTH": "2"}, "found text/plain"),
        ({"CONTENT_TYPE": "text/plain", "HTTP_TRANSFER_ENCODING": "chunked"}, "found text/plain"),
        (
            {"CONTENT_TYPE": "application/x-www-form-urlencoded", "CONTENT_LENGTH": "2", "HTTP_ORIGIN": "http://127.0.0.1:8080"},
            "found application/x-www-form-urlencoded",
        ),
    ],
)  # fmt: skip
def test_pages_of_other_sites_write_nowhere(method: str, headers: dict[str, str], says: str) -> None:
    given = {"CONTENT_TYPE": JSON, "CONTENT_LENGTH": "2", **headers}
    status, _, body = ask(WRITES, method, **given)
    assert status == "403 Forbidden"
    assert says in json.loads(body)["reason"]


def test_a_form_without_anything_that_says_where_it_comes_from_is_refused() -> None:
    assert not is_passed_on(WRITES, "POST", CONTENT_TYPE="", CONTENT_LENGTH="0")


def test_answers_are_kept_from_other_pages_and_artifacts_from_running() -> None:
    _, headers, _ = ask(READS, path="/artifacts/1/2/ab")
    assert "Access-Control-Allow-Origin" not in headers
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in headers["Content-Security-Policy"]
    _, headers, _ = ask(READS, path="/dashboard")
    assert "Content-Security-Policy" not in headers
