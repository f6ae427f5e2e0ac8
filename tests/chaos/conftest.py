"""What the command line's tests have, for these too."""

from tests.e2e.conftest import cli, prepared_home

__all__ = ["cli", "prepared_home"]
