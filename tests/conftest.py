"""Settings of every test."""

from __future__ import annotations

import os

# Several test processes run at once; torch's threads would wait for each other (docs/decisions/0011-threads.md).
os.environ.setdefault("OMP_NUM_THREADS", "1")
