"""Recordings: JSON with the config space of every function, the ACPI tables, and the groups a real kernel formed."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import FunctionDescription, MachineDescription, Route
from quiesce.snapshot.errors import BadInput

_SIZES = (64, 256, 4096)
_OTHER_TABLES = ("APIC", "MCFG", "VIOT", "IORT")
_IOMMUS = ("intel", "amd", "virtio", "none")


def read_recording(text: str, file: str) -> MachineDescription:
    """Read a recording; the recorded groups are kept apart and no part of the machine."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        place = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise BadInput(file, place, "JSON") from None
    devices = _member(data, "devices", dict, file)
    functions = [_function(address, item, file) for address, item in devices.items()]
    if not functions:
        raise BadInput(file, "devices", "at least one function")
    if len({item.bdf for item in functions}) < len(functions):
        raise BadInput(file, "devices", "every address once")
    acpi = _member(data, "acpi", dict, file, {})
    return MachineDescription(
        name=_member(data, "name", str, file, "recording"),
        functions=tuple(sorted(functions, key=lambda item: item.bdf)),
        ivrs=_table(acpi, "IVRS", file),
        dmar=_table(acpi, "DMAR", file),
        routing=_q35_routing(),
        source=file,
        recorded_groups=_groups(data, file),
        recorded_ungrouped=tuple(str(item) for item in _member(data, "ungrouped", list, file, [])),
        tables={name: (found,) for name in _OTHER_TABLES if (found := _table(acpi, name, file)) is not None},
        kernel=_member(data, "kernel", str, file, "") or None,
        cmdline=_member(data, "cmdline", str, file, "") or None,
        iommu_hint=_hint(data, file),
    )


def _hint(data: object, file: str) -> str | None:
    stated = _member(data, "iommu", str, file, "")
    return next((kind for kind in _IOMMUS if stated.startswith(kind)), None)


def _q35_routing() -> tuple[Route, ...]:
    """The wiring of QEMU's q35, on which the recordings were made: slots up to 24 of the root bus share inputs 20 to
    23, the chipset's own slots use 16 to 19. The recorded interrupt numbers of bound devices agree.
    """
    slots = ((device, 20, device) if device < 25 else (device, 16, 0) for device in range(32))
    return tuple(
        Route(device, pin, first + (turn + pin - 1) % 4) for device, first, turn in slots for pin in (1, 2, 3, 4)
    )


def _member(data: object, key: str, kind: type, file: str, default: Any = None) -> Any:
    if not isinstance(data, dict):
        raise BadInput(file, "", "a JSON object")
    found = data.get(key, default)
    if not isinstance(found, kind):
        raise BadInput(file, key, f"a value of type {kind.__name__}")
    return found


def _function(address: str, item: object, file: str) -> FunctionDescription:
    try:
        bdf = Bdf.parse(address)
        config = bytes.fromhex(_member(item, "config", str, file))
    except ValueError:
        raise BadInput(file, f"devices {address}", "a PCI address and config space in hex") from None
    if len(config) not in _SIZES:
        raise BadInput(file, f"devices {address}", f"64, 256 or 4096 bytes of config space, found {len(config)}")
    return FunctionDescription(bdf, config, attributes=_attributes(item, config))


def _attributes(item: object, config: bytes) -> Mapping[str, str]:
    """Keep the ids that sysfs shows where config space reads ffff, as in a virtual function, and whether it was
    firmware that left bus mastering as it is.
    """
    if not isinstance(item, dict):
        return {}
    if config[:4] != b"\xff\xff\xff\xff":
        return {"master": "firmware"} if item.get("master") == "firmware" else {}
    ids = {key: str(item.get(key, "")).removeprefix("0x") for key in ("vendor", "device")}
    return {key: value for key, value in ids.items() if len(value) == 4 and set(value) <= set("0123456789abcdef")}


def _table(acpi: Mapping[str, object], name: str, file: str) -> bytes | None:
    found = acpi.get(name)
    if found is None:
        return None
    try:
        return base64.b64decode(str(found), validate=True)
    except (binascii.Error, ValueError):
        raise BadInput(file, f"acpi {name}", "a table in base64") from None


def _groups(data: object, file: str) -> tuple[tuple[str, ...], ...] | None:
    groups = _member(data, "groups", dict, file, {})
    if not groups:
        return None
    members = [_member(group, "devices", list, file) for group in groups.values()]
    return tuple(sorted(tuple(sorted(str(item) for item in group)) for group in members))
