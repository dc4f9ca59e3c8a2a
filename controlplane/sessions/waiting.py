"""The words of messages between their being stored and their entering the full text, in memory: so they need not be
read and decoded again. What is not here is read.
"""

import threading
import time
from typing import Final

LIMIT: Final = 32 << 20
"""Characters that are kept; of more the oldest go."""

Words = tuple[str, str]
"""Said, and in tools."""


class Waiting:
    """For several threads. A token is given once, in this run and any other; 0 is none."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._words: dict[int, Words] = {}
        self._size = 0
        self._token = time.time_ns()

    def put(self, words: Words) -> int:
        """Keep them. By the token that is given back they are found, once."""
        with self._lock:
            self._token += 1
            self._words[self._token] = words
            self._size += _size(words)
            while self._size > self._limit:
                self._size -= _size(self._words.pop(next(iter(self._words))))
            return self._token

    def take(self, token: int) -> Words | None:
        """None where they are not here (any more)."""
        with self._lock:
            words = self._words.pop(token, None)
            if words is not None:
                self._size -= _size(words)
            return words


def _size(words: Words) -> int:
    return len(words[0]) + len(words[1])
