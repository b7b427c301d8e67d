"""Progress on standard error, with the time that is left."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable

# Where it is not looked at live, a line a second would fill a log.
LOG_INTERVAL = 15.0


class Progress:
    """``done of total, time left`` on one line, or now and then a line where nobody looks live.

    Args:
        what: What is being done, e.g. ``'looking at images'``.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.start = self.shown = 0.0
        self.first: int | None = None
        self.ended: int | None = None
        self.width = 0

    def __call__(self, done: int, total: int, note: str = '') -> None:
        """Report ``done`` of ``total``; ``note`` stands behind it."""
        now = time.monotonic()
        if self.first is None:
            # What an earlier call had done says nothing about the speed.
            self.first, self.start = done, now
        if self.ended == total == done:
            # The last part of the work was empty, or said twice that it was done.
            return
        self.ended = total if done >= total else None
        live = sys.stderr.isatty()
        if done < total and now - self.shown < (1.0 if live else LOG_INTERVAL):
            return
        self.shown = now
        new = done - self.first
        left = ''
        if new and done < total:
            seconds = int((total - done) * (now - self.start) / new)
            left = f', {seconds // 60}:{seconds % 60:02d} left'
        note = f', {note}' if note else ''
        text = f'{self.what}: {done} of {total}{note}{left}'
        end = '\n' if not live or done >= total else ''
        # Blanks cover what a longer line before it leaves on the terminal.
        line = f'\r{text.ljust(self.width)}' if live else text
        print(line, end=end, file=sys.stderr, flush=True)
        self.width = 0 if end else len(text)


def one_by_one(what: str, total: int) -> Callable[[], None]:
    """What to call after each of ``total`` things, for their :class:`Progress`."""
    progress, done = Progress(what), itertools.count(1)
    return lambda: progress(next(done), total)
