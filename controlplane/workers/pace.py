"""How long to wait before a worker is dialled again. Pure."""

FIRST_PAUSE = 0.05
LAST_PAUSE = 10.0
BROKEN_PAUSE = 60.0
"""After a worker has sent what is out of bounds."""


def pause(failures: int) -> float:
    """Seconds until the next try, after so many that failed in a row. A worker comes up within a second or so."""
    return float(min(LAST_PAUSE, FIRST_PAUSE * 1.5 ** min(failures, 30)))
