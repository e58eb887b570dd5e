"""Folders: the kernel's own ``/sys/bus/pci/devices``, copies of it, and folders of raw config files."""

from __future__ import annotations

import re
from pathlib import Path

from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import FunctionDescription, MachineDescription
from quiesce.snapshot.errors import BadInput, read_limited, read_limited_text

_LIVE = Path("/sys/bus/pci/devices")
_LIVE_TABLES = Path("/sys/firmware/acpi/tables")
_CONFIG_FILE = re.compile(r"([0-9a-fA-F]{4})-([0-9a-fA-F]{2})-([0-9a-fA-F]{2})\.([0-7])\.config")
_SIZES = (64, 256, 4096)


def config_files(folder: Path) -> dict[Bdf, Path]:
    """Return the raw config files in a folder: ``0000:00:1f.2/config`` or ``0000-00-1f.2.config``."""
    found: dict[Bdf, Path] = {}
    for item in sorted(folder.iterdir()):
        match = _CONFIG_FILE.fullmatch(item.name)
        text = f"{match[1]}:{match[2]}:{match[3]}.{match[4]}" if match else item.name
        path = item if match else item / "config"
        try:
            bdf = Bdf.parse(text)
        except ValueError:
            continue
        if path.is_file():
            found[bdf] = path
    return found


def read_folder(folder: Path) -> MachineDescription:
    """Read a folder of config files; of a running system, the groups and the ACPI tables too."""
    functions = tuple(_read_function(bdf, path) for bdf, path in sorted(config_files(folder).items()))
    groups, ungrouped = _groups(folder, functions)
    live = folder.resolve() == _LIVE.resolve()
    tables = {name: _live_table(name) if live else None for name in ("IVRS", "DMAR")}
    short = sum(1 for item in functions if len(item.config) == _SIZES[0])
    notes = [f"{short} functions show only 64 bytes: read as root for the capabilities"] if short else []
    return MachineDescription(
        name=folder.name,
        functions=functions,
        ivrs=tables["IVRS"],
        dmar=tables["DMAR"],
        source=str(folder),
        notes=tuple(notes),
        recorded_groups=groups,
        recorded_ungrouped=ungrouped,
    )


def _read_function(bdf: Bdf, path: Path) -> FunctionDescription:
    config = read_limited(path)
    if len(config) not in _SIZES:
        raise BadInput(str(path), "", f"64, 256 or 4096 bytes of config space, found {len(config)}")
    attributes = {}
    for name in ("vendor", "device"):
        file = path.parent / name
        if config[:4] == b"\xff\xff\xff\xff" and path.name == "config" and file.is_file():
            text = read_limited_text(file).strip().removeprefix("0x")
            if re.fullmatch(r"[0-9a-f]{4}", text):
                attributes[name] = text
    return FunctionDescription(bdf, config, attributes=attributes)


def _groups(
    folder: Path, functions: tuple[FunctionDescription, ...]
) -> tuple[tuple[tuple[str, ...], ...] | None, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    ungrouped = []
    for item in functions:
        link = folder / str(item.bdf) / "iommu_group"
        if link.is_dir():
            found.setdefault(link.resolve().name, []).append(str(item.bdf))
        else:
            ungrouped.append(str(item.bdf))
    return (tuple(sorted(map(tuple, found.values()))), tuple(ungrouped)) if found else (None, ())


def _live_table(name: str) -> bytes | None:
    path = _LIVE_TABLES / name
    try:
        return read_limited(path) if path.is_file() else None
    except BadInput:
        return None
