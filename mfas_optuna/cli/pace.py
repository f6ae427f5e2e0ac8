"""How fast long work goes, from what it tells of its progress."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

WINDOW_S = 30.0
"""The pace is that of the last seconds: networks on an idle machine and on a busy one differ."""
_BETWEEN_S = 1.0
_AT_LEAST_S = 2.0
"""A pace is told after so much time; before it would jump."""


class Pace:
    """Follows one piece of work after the other; a new one begins when its name or its total changes, or it goes back.

    What was done before the first news of a piece, by an interrupted run, does not count.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._work: tuple[str, int] | None = None
        self._news: deque[tuple[float, int]] = deque()
        self._now = (0.0, 0)

    def add(self, what: str, done: int, total: int) -> None:
        """Take note of how far the work is."""
        now = self._clock()
        is_new = self._work != (what, total) or done < self._now[1]
        self._now = (now, done)
        # A view may look from another thread meanwhile: there is always a first point once there was one.
        if is_new:
            self._work = (what, total)
            self._news = deque([self._now])
        # A point a second is enough, however often news comes.
        elif now - self._news[-1][0] >= _BETWEEN_S:
            self._news.append(self._now)
        while len(self._news) > 1 and now - self._news[1][0] >= WINDOW_S:
            self._news.popleft()

    @property
    def per_second(self) -> float | None:
        """Parts a second lately; None at the beginning of a piece, and when nothing was done."""
        news = self._news
        if not news:
            return None
        (since, before), (now, done) = news[0], self._now
        if now - since < _AT_LEAST_S or done <= before:
            return None
        return (done - before) / (now - since)


def clock(seconds: float) -> str:
    """Return seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
