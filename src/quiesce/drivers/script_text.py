"""The language of scripted drivers: a driver as the calls that each of its callbacks makes (docs/scripted-drivers.md).

::

    driver     correct
    operations late                       its file's events are late-open and late-close; default: the driver's name
    ids        1234:11e8 class 03 any     what it claims by itself; default: only what driver_override gives it
    probe
      pci_enable_device undo pci_disable_device
      pci_alloc_irq_vectors 1 1 msi intx undo pci_free_irq_vectors
      try start_device
    remove
      pci_free_irq_vectors; pci_disable_device

The same text is given to the model (``scripted``) and to a kernel module that executes it in a real kernel.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from dataclasses import dataclass

from quiesce.kernel.driver import DeviceId
from quiesce.snapshot.errors import BadInput

SECTIONS = ("probe", "remove", "shutdown", "suspend", "resume", "open", "close", "release")
"""The callbacks; ``release`` runs once neither the binding nor an open file needs the driver's data any more."""
STOPPING = ("probe", "suspend", "resume", "open")
"""Callbacks that a failed step ends; the others cannot fail and go on."""
MOST_STEPS = 32
MOST_IDS = 4
MOST_TEXT = 4000
"""What the kernel module has room for: steps of a callback, ids, bytes."""
ERRORS = ("ENODEV", "EIO", "ENOMEM", "EBUSY", "EINVAL", "ENXIO", "EPROBE_DEFER")
_EPROBE_DEFER = 517

_NAME = r"[A-Za-z0-9_.-]{1,23}"
_NONE, _FLAG = ("", "nothing"), ("[01]", "0 or 1")
_OBJECT = (_NAME, "a name of up to 23 letters")
_HANDLER = (
    rf"{_NAME}( shared| shared-line)?",
    "a name, then 'shared', 'shared-line' (shared unless a message) or nothing",
)

CALLS: Mapping[str, tuple[str, str]] = {
    "pci_enable_device": _NONE,
    "pci_disable_device": _NONE,
    "pcim_enable_device": _NONE,
    "pcim_pin_device": _NONE,
    "pci_set_master": _NONE,
    "pci_clear_master": _NONE,
    "pcim_set_mwi": _NONE,
    "pci_request_regions": _NONE,
    "pci_release_regions": _NONE,
    "pci_iomap": _NONE,
    "pci_iounmap": _NONE,
    "pcim_iomap_regions": _NONE,
    "pci_intx": _FLAG,
    "pcim_intx": _FLAG,
    "pci_alloc_irq_vectors": (r"[1-9]\d? [1-9]\d?( (msix|msi|intx))+", "two numbers, then msix, msi, intx"),
    "pci_free_irq_vectors": _NONE,
    "pci_enable_msi": _NONE,
    "pci_disable_msi": _NONE,
    "request_irq": _HANDLER,
    "free_irq": _OBJECT,
    "devm_request_irq": _HANDLER,
    "devm_free_irq": _OBJECT,
    "dma_map_single": _OBJECT,
    "dma_unmap_single": _OBJECT,
    "dma_alloc_coherent": _OBJECT,
    "dma_free_coherent": _OBJECT,
    "dmam_alloc_coherent": _OBJECT,
    "pci_save_state": _NONE,
    "pci_restore_state": _NONE,
    "pci_set_power_state": ("D0|D1|D2|D3hot", "D0, D1, D2 or D3hot"),
    "pci_dev_get": _NONE,
    "pci_dev_put": _NONE,
    "kzalloc": _OBJECT,
    "answers": _NONE,
    "start_device": _NONE,
    "stop_device": _NONE,
    "mask_device": _NONE,
    "give_to_device": _OBJECT,
    "take_from_device": _OBJECT,
    "window": (r"\S.{0,60}", "a few words"),
    "fail": ("|".join(ERRORS), "one of " + ", ".join(ERRORS)),
}
"""Every step with the pattern of its arguments and what that means. Kernel calls have the kernel's names; what is done
to the device itself has the names of drivers/common.py; ``window`` and ``fail`` are the script's own."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call with its arguments."""

    name: str
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ScriptStep:
    """A call, whether its failure matters, and what takes it back when a later step of the callback fails."""

    call: Call
    undo: Call | None = None
    may_fail: bool = False


@dataclass(frozen=True)
class Script:
    """A driver's script."""

    name: str
    operations: str
    """The first word of the events that open and close its file."""
    ids: tuple[DeviceId, ...]
    sections: Mapping[str, tuple[ScriptStep, ...]]
    """The callbacks it has, possibly empty ones."""
    text: str
    """What it was read from, as the kernel module gets it."""


def error_number(name: str) -> int:
    """Return the number of an error that a script can fail with."""
    return _EPROBE_DEFER if name == "EPROBE_DEFER" else int(getattr(errno, name))


def parse_script(text: str, path: str = "driver script") -> Script:
    """Read a script; raises BadInput."""
    if len(text.encode()) > MOST_TEXT:
        raise BadInput(path, "", f"at most {MOST_TEXT} bytes")
    reader = _Reader(path)
    for number, line in enumerate(text.splitlines(), start=1):
        for part in line.split(";") if not line.lstrip().startswith("#") else ():
            if part.strip():
                reader.take(" ".join(part.split()), f"line {number}")
    if not reader.name:
        raise BadInput(path, "end", "'driver NAME'")
    sections = {name: tuple(steps) for name, steps in reader.sections.items()}
    _check_whole(sections, path)
    ids = reader.ids or (DeviceId(override_only=True),)
    return Script(reader.name, reader.operations or reader.name, ids, sections, text)


def _check_whole(sections: Mapping[str, tuple[ScriptStep, ...]], path: str) -> None:
    if "probe" not in sections:
        raise BadInput(path, "end", "a 'probe' section")
    if ("open" in sections) is not ("close" in sections):
        raise BadInput(path, "end", "'open' and 'close' together")


class _Reader:
    """Takes one line or step after the other."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = self.operations = ""
        self.ids: tuple[DeviceId, ...] = ()
        self.sections: dict[str, list[ScriptStep]] = {}
        self.section = ""

    def take(self, words: str, place: str) -> None:
        """Take one line, or what stands between semicolons."""
        key, _, rest = words.partition(" ")
        if not self.name and key != "driver":
            raise BadInput(self.path, place, f"'driver NAME' first, not {words[:40]!r}")
        if key in ("driver", "operations"):
            self._name(key, rest, place)
        elif key == "ids":
            self.ids = self._ids(rest.split(), place)
        elif key in SECTIONS:
            if key in self.sections:
                raise BadInput(self.path, place, f"one section {key!r}")
            self.section, self.sections[key] = key, []
            if rest:
                self._step(rest, place)
        else:
            self._step(words, place)

    def _name(self, key: str, value: str, place: str) -> None:
        if not re.fullmatch(_NAME, value) or (key == "driver" and self.name):
            raise BadInput(self.path, place, f"one {key} name of up to 23 letters, not {value[:40]!r}")
        if key == "driver":
            self.name = value
        else:
            self.operations = value

    def _ids(self, words: list[str], place: str) -> tuple[DeviceId, ...]:
        found: list[DeviceId] = []
        while words:
            word = words.pop(0)
            value = words.pop(0) if word == "class" and words else word
            found.append(self._id(word, value, place))
        if not 0 < len(found) <= MOST_IDS:
            raise BadInput(self.path, place, f"one to {MOST_IDS} ids")
        return tuple(found)

    def _id(self, word: str, value: str, place: str) -> DeviceId:
        if word == "any":
            return DeviceId()
        if word == "class" and re.fullmatch("[0-9a-f]{2}([0-9a-f]{2})?", value):
            return DeviceId(base_class=int(value[:2], 16), sub_class=int(value[2:], 16) if value[2:] else None)
        if re.fullmatch("[0-9a-f]{4}:[0-9a-f]{4}", word):
            return DeviceId(vendor=int(word[:4], 16), device=int(word[5:], 16))
        raise BadInput(self.path, place, f"ids like 1234:11e8, 'class 0106' or any, not {word[:20]!r}")

    def _step(self, words: str, place: str) -> None:
        if not self.section:
            raise BadInput(self.path, place, f"one of {', '.join(SECTIONS)} before {words[:40]!r}")
        done, undo, back = words.partition(" undo ")
        may_fail = done.startswith("try ")
        step = ScriptStep(
            self._call(done.removeprefix("try "), place), self._call(back, place) if undo else None, may_fail
        )
        steps = self.sections[self.section]
        if len(steps) == MOST_STEPS:
            raise BadInput(self.path, place, f"at most {MOST_STEPS} steps in {self.section}")
        steps.append(step)

    def _call(self, words: str, place: str) -> Call:
        name, _, rest = words.partition(" ")
        if name not in CALLS:
            raise BadInput(self.path, place, f"a call that docs/scripted-drivers.md lists, not {name[:40]!r}")
        pattern, meaning = CALLS[name]
        if not re.fullmatch(pattern, rest):
            raise BadInput(self.path, place, f"{meaning} after {name}, not {rest[:40]!r}")
        return Call(name, tuple(rest.split()))
