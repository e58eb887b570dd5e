"""The kernel parameters that change which functions are isolated (Documentation/admin-guide/kernel-parameters.txt).

``pcie_acs_override=`` is in no mainline kernel: it comes with a patch that some distributions carry.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from quiesce.machine import pci_regs as r
from quiesce.snapshot.errors import BadInput

if TYPE_CHECKING:
    from quiesce.machine.view import SiliconView

_OVERRIDES = ("downstream", "multifunction")
_ID = r"id:([0-9a-fA-F]{1,4}):([0-9a-fA-F]{1,4})"
_PLACE = r"(?:([0-9a-fA-F]{1,8}):)?([0-9a-fA-F]{1,2}):([0-9a-fA-F]{1,2})\.([0-7])((?:/[0-9a-fA-F]{1,2}\.[0-7])*)"
_IDS = r"pci:([0-9a-fA-F]{1,4}):([0-9a-fA-F]{1,4})(?::([0-9a-fA-F]{1,4}):([0-9a-fA-F]{1,4}))?"
_ACS = r"[01xX]{1,7}"


class DeviceSpec(NamedTuple):
    """A device in a parameter (drivers/pci/pci.c ``pci_dev_str_match``): a place with the path below it, or ids."""

    text: str
    segment: int = 0
    path: tuple[tuple[int, int, int], ...] = ()
    """(bus, device, function) of the first, then (0, device, function) below it."""
    ids: tuple[int, ...] = ()
    """Vendor, device, subsystem vendor, subsystem device; 0 stands for any."""

    def matches(self, hw: SiliconView) -> bool:
        """Whether it names this function."""
        return self._by_ids(hw) if self.ids else self._by_path(hw)

    def _by_ids(self, hw: SiliconView) -> bool:
        at = (r.PCI_SUBSYSTEM_VENDOR_ID, r.PCI_SUBSYSTEM_ID)
        found = hw.vendor, hw.device, *(hw.config.static(offset, 2) for offset in at)
        return all(wanted in (0, value) for wanted, value in zip(self.ids, found, strict=True))

    def _by_path(self, hw: SiliconView) -> bool:
        here: SiliconView | None = hw
        for number, (bus, device, function) in enumerate(reversed(self.path), start=1):
            if here is None or here.bdf[2:] != (device, function):
                return False
            if number == len(self.path):
                return here.bdf[:2] == (self.segment, bus)
            here = here.upstream
        return False


class AcsRequest(NamedTuple):
    """One entry of ``config_acs=``: bits to set and to clear, and where."""

    set: int
    clear: int
    where: DeviceSpec


@dataclass(frozen=True, slots=True)
class Parameters:
    """What the command line says about isolation."""

    override: frozenset[str] = frozenset()
    """``downstream`` and ``multifunction`` of ``pcie_acs_override=``."""
    override_ids: frozenset[tuple[int, int]] = frozenset()
    """Vendor and device ids of ``pcie_acs_override=id:VVVV:DDDD``."""
    config_acs: tuple[AcsRequest, ...] = ()
    disable_acs_redir: tuple[DeviceSpec, ...] = ()
    iommu_off: bool = False
    """``intel_iommu=off``, ``amd_iommu=off`` or ``iommu=off``."""


def parse_parameters(words: Iterable[str], source: str = "command line") -> Parameters:
    """Read the words of a kernel command line; those that say nothing about isolation are passed over.

    Raises BadInput for a value that the kernel would not understand.
    """
    found = Parameters()
    for word in words:
        name, _, value = word.strip().strip('"').partition("=")
        if name == "pcie_acs_override":
            found = _merged(found, *_override(value, source))
        elif name == "pci":
            found = _pci_options(found, value, source)
        elif name in ("intel_iommu", "amd_iommu", "iommu") and "off" in value.split(","):
            found = _changed(found, iommu_off=True)
    return found


def _changed(found: Parameters, **changes: object) -> Parameters:
    return replace(found, **changes)  # type: ignore[arg-type]


def _merged(found: Parameters, names: frozenset[str], ids: frozenset[tuple[int, int]]) -> Parameters:
    return _changed(found, override=found.override | names, override_ids=found.override_ids | ids)


def _override(value: str, source: str) -> tuple[frozenset[str], frozenset[tuple[int, int]]]:
    names, ids = set(), set()
    for item in filter(None, value.split(",")):
        match = re.fullmatch(_ID, item)
        if match is not None:
            ids.add((int(match[1], 16), int(match[2], 16)))
        elif item in _OVERRIDES:
            names.add(item)
        else:
            raise BadInput(source, f"pcie_acs_override={value}", "downstream, multifunction or id:VVVV:DDDD")
    return frozenset(names), frozenset(ids)


def _pci_options(found: Parameters, value: str, source: str) -> Parameters:
    """``pci=`` takes options apart at commas; entries within one are separated by semicolons."""
    for option in value.split(","):
        name, _, text = option.partition("=")
        if name == "disable_acs_redir":
            specs = tuple(_spec(item, source) for item in text.split(";") if item)
            found = _changed(found, disable_acs_redir=found.disable_acs_redir + specs)
        elif name == "config_acs":
            requests = tuple(_request(item, source) for item in text.split(";") if item)
            found = _changed(found, config_acs=found.config_acs + requests)
    return found


def _request(item: str, source: str) -> AcsRequest:
    flags, _, where = item.partition("@")
    if not re.fullmatch(_ACS, flags) or not where:
        raise BadInput(source, f"config_acs={item}", "bits such as 1x0 (the last one is SV), then @ and a device")
    bits = dict(enumerate(reversed(flags)))
    ones, zeros = (sum(1 << number for number, digit in bits.items() if digit == wanted) for wanted in "10")
    return AcsRequest(ones, zeros, _spec(where, source))


def _spec(text: str, source: str) -> DeviceSpec:
    ids = re.fullmatch(_IDS, text)
    if ids is not None:
        return DeviceSpec(text, ids=tuple(int(part or "0", 16) for part in ids.groups()))
    place = re.fullmatch(_PLACE, text)
    if place is None:
        raise BadInput(source, text, "a device such as 00:1c.0, 00:1c.0/00.0 or pci:8086:a340")
    first = int(place[2], 16), int(place[3], 16), int(place[4])
    below = tuple(
        (0, int(step.partition(".")[0], 16), int(step.partition(".")[2])) for step in place[5].split("/") if step
    )
    return DeviceSpec(text, int(place[1] or "0", 16), (first, *below))
