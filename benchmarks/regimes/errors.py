"""What goes wrong in this benchmark and can be mended by whoever runs it."""

from __future__ import annotations


class RegimeError(ValueError):
    """A cell cannot be made or used; the message says which, why, and what to do."""
