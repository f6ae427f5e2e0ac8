"""The fingerprint of settings, and what differs between two of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any


def fingerprint(values: Any) -> str:
    """Return the SHA-256 of JSON values, as hex; the order of keys matters, since that of modalities does."""
    text = json.dumps(values, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(stored: Mapping[str, Any], given: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Yield one line for each leaf that differs between two trees of settings."""
    for key in [*stored, *(key for key in given if key not in stored)]:
        name = f"{path}.{key}" if path else str(key)
        old, new = stored.get(key), given.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            if list(old) != list(new) and sorted(old) == sorted(new):
                yield f"{name}: the order was {list(old)}, is now {list(new)}"
            yield from differences(old, new, name)
        elif old != new or (key in stored) != (key in given):
            was, now = (json.dumps(tree[key]) if key in tree else "absent" for tree in (stored, given))
            yield f"{name}: was {was}, is now {now}"
