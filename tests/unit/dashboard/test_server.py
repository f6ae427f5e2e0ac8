"""Where a dashboard is served, and where not."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfas_optuna.dashboard import Address, serve_dashboard
from mfas_optuna.errors import DashboardError, StorageError


def never(address: Address) -> None:
    pytest.fail(f"was served at {address}")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "box.example", "", "127.0.0.1.example"])
@pytest.mark.parametrize("allow_writes", [False, True])
def test_what_others_reach_is_refused_with_what_it_exposes(host: str, allow_writes: bool) -> None:
    with pytest.raises(DashboardError, match="--expose-without-password") as caught:
        serve_dashboard("sqlite:///there-is-none.db", Path("none"), never, host=host, allow_writes=allow_writes)
    assert f"found {host}, which other machines reach" in str(caught.value)
    assert "reads every study" in str(caught.value)
    assert ("deletes it" in str(caught.value)) == allow_writes


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
def test_without_a_database_nothing_is_served(host: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is no study database"):
        serve_dashboard(f"sqlite:///{tmp_path / 'none.db'}", tmp_path, never, host=host)


def test_addresses_are_ones_that_can_be_typed() -> None:
    here = Address("::1", 8081, "box", "ann", is_exposed=False)
    assert here.url == "http://[::1]:8081"
    assert here.tunnel == "ssh -N -L 8081:[::1]:8081 ann@box"
    assert Address("0.0.0.0", 80, "box", "ann", is_exposed=True).url == "http://box:80"
