"""The one error that reading an input may raise, and reading a file without any other."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SIZE_LIMIT = 64 << 20
"""No file that is larger is read."""


class BadInput(Exception):
    """An input file is not what it should be.

    ``file`` names the input, ``place`` where in it (``line 12``, ``offset 0x30``, may be empty), ``expected`` what
    should have been there.
    """

    def __init__(self, file: str, place: str, expected: str) -> None:
        self.file = file
        self.place = place
        self.expected = expected
        where = f"{file}: {place}" if place else file
        super().__init__(f"{where}: expected {expected}")

    def __reduce__(self) -> tuple[type[BadInput], tuple[str, str, str]]:
        """Let it come back from a worker process as it was."""
        return type(self), (self.file, self.place, self.expected)


def read_limited(path: str | Path) -> bytes:
    """Return what is in a file; raises BadInput when it cannot be read or is too large to be what we read."""
    try:
        if not os.path.isfile(path):
            raise BadInput(str(path), "", "a file")
        with open(path, "rb") as file:
            data = file.read(SIZE_LIMIT + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a file name"
        raise BadInput(repr(str(path)), "", f"a readable file ({reason})") from None
    if len(data) > SIZE_LIMIT:
        raise BadInput(str(path), "", f"at most {SIZE_LIMIT >> 20} MiB")
    return data


def read_limited_text(path: str | Path) -> str:
    """Return the text in a file; what is no UTF-8 is replaced."""
    return read_limited(path).decode("utf-8", "replace")
