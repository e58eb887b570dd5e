"""A guest that is none: it writes down what it is told to do and answers what the test wants to hear."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quiesce.testbed.images import KernelImage

DEVICES = "/sys/bus/pci/devices"
DRIVERS = "/sys/bus/pci/drivers"


class Clock:
    """Stands in for the module ``time``: only sleeping makes it go on."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def config(command: int = 0, bars: bytes = b"\0\0\0\xe0", ids: bytes = b"\x34\x12\xe8\x11") -> bytes:
    """Return 256 bytes of config space."""
    data = bytearray(256)
    data[0:4] = ids
    data[4:6] = command.to_bytes(2, "little")
    data[0x10 : 0x10 + len(bars)] = bars
    return bytes(data)


class FakeGuest:
    """``did`` is everything it was told to do, in order."""

    def __init__(self) -> None:
        self.did: list[tuple[str, ...]] = []
        self.files: dict[str, str] = {}
        self.folders: dict[str, list[str]] = {}
        self.answers: dict[str, int | None] = {}
        """Path -> what a write to it gives; None for one that does not come back."""
        self.configs: dict[str, bytes] = {}
        self.says: list[tuple[str, int, str]] = []
        """Part of a script -> its status and what it writes."""
        self.replies: dict[str, tuple[int, str]] = {}
        """Line to a program -> its reply."""
        self.programs: set[str] = set()
        self.log: list[str] = []
        self.slept: int | None = None
        self.woken = 0
        self.found = ["0000:03:00.0"]
        """What plugging in makes appear."""
        self._paths: list[str] = []

    # -- coming and going

    def start(self) -> None:
        self.did.append(("start",))

    def stop(self) -> None:
        self.did.append(("stop",))

    def __enter__(self) -> FakeGuest:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def save(self, path: Path) -> None:
        self.did.append(("save", path.name))
        path.touch()

    def restore(self, path: Path) -> None:
        self.did.append(("restore", path.name))

    # -- files

    def read(self, path: str) -> str | None:
        return self.files.get(path)

    def names(self, path: str) -> list[str]:
        return self.folders.get(path, [])

    def write(self, path: str, data: str, timeout: float = 0) -> int:
        self.did.append(("write", path, data))
        return self.answers.get(path, 0) or 0

    def write_behind(self, path: str, data: str) -> int:
        self.did.append(("write", path, data))
        self._paths.append(path)
        return len(self._paths) - 1

    def poll(self, handle: int) -> int | None:
        return self.answers.get(self._paths[handle], 0)

    def shell(self, script: str, timeout: float = 0) -> tuple[int, str]:
        self.did.append(("shell", script))
        return next(((rc, text) for part, rc, text in self.says if part in script), (0, ""))

    def kernel_log(self) -> list[str]:
        lines, self.log = self.log, []
        return lines

    def config(self, bdf: str, length: int = 256) -> bytes:
        return self.configs.get(bdf, b"\xff" * 256)[:length]

    def snapshot(self) -> dict[str, dict[str, object]]:
        return {"dev": {}, "group": {}}

    # -- programs

    def program(self, name: str, *words: str) -> int:
        self.did.append(("program", name, *words))
        self.programs.add(name)
        return 1

    def tell(self, name: str, line: str, timeout: float) -> tuple[int, str]:
        if name not in self.programs:
            raise KeyError(name)
        self.did.append(("tell", line))
        return self.replies.get(line, (0, "OK"))

    def end(self, name: str) -> int:
        self.did.append(("end", name))
        self.programs.discard(name)
        return 0

    # -- hardware and power

    def surprise(self, id: str) -> None:  # noqa: A002
        self.did.append(("surprise", id))

    def plug(self, device: object) -> Sequence[str]:
        self.did.append(("plug", str(getattr(device, "id", ""))))
        return self.found

    def sleep(self) -> int | None:
        self.did.append(("sleep",))
        return self.slept

    def wake(self) -> int:
        self.did.append(("wake",))
        return self.woken

    def hold_at_reset(self) -> None:
        self.did.append(("hold",))

    def kexec(self) -> None:
        self.did.append(("kexec",))

    def second_kernel_speaks(self) -> bool:
        return False

    def meet_second_kernel(self) -> None:
        self.did.append(("meet",))

    # -- for tests

    def writes(self) -> list[tuple[str, str]]:
        """Return path and data of every write."""
        return [(one[1], one[2]) for one in self.did if one[0] == "write"]

    def told(self) -> list[str]:
        """Return the lines that programs were given."""
        return [one[1] for one in self.did if one[0] == "tell"]

    def scripts(self, part: str) -> list[str]:
        """Return the scripts that contain a text."""
        return [one[1] for one in self.did if one[0] == "shell" and part in one[1]]


def image(folder: Path, built_in: Sequence[str] = (), *, switches: bool = False) -> KernelImage:
    """Return a kernel of which there is nothing but its name."""
    return KernelImage(
        "debian:6.12",
        "6.12.107+deb13-amd64",
        "",
        folder,
        relocatable=True,
        switches=switches,
        version="1",
        built_in=frozenset(built_in),
    )
