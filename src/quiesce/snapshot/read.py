"""Reads a machine from whatever it was recorded in, choosing the format by content."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from quiesce.snapshot import sysfs, text
from quiesce.snapshot.description import MachineDescription
from quiesce.snapshot.dmar import read_dmar
from quiesce.snapshot.errors import BadInput, read_limited, read_limited_text
from quiesce.snapshot.ivrs import read_ivrs
from quiesce.snapshot.lspci import read_lspci
from quiesce.snapshot.lspci_verbose import Ids
from quiesce.snapshot.qemu_recording import read_recording

_OUR_TEXT = re.compile(r"^\s*(machine\s+\S+\s*$|([0-9a-fA-F:]+\.[0-7])\s+[a-z][a-z0-9-]*(\s|$))", re.MULTILINE)
_HEX = re.compile(r"^\s*[0-9a-fA-F]{2}: [0-9a-fA-F]{2} ", re.MULTILINE)


def read_machine(source: str | Path) -> MachineDescription:
    """Read a machine from a file or folder, or from text that has more than one line.

    Files: a recording (JSON), lspci output, a text description. Folders: lspci output with raw ACPI tables in
    ``acpi/``, a copy of ``/sys/bus/pci/devices`` or that itself. Raises BadInput.
    """
    if isinstance(source, str) and "\n" in source:
        return read_text(source, "text")
    path = Path(source)
    try:
        if path.is_dir():
            return _read_folder(path)
    except (OSError, ValueError) as error:
        raise BadInput(repr(str(path)), "", f"a file or folder that can be read ({error})") from None
    return read_text(read_limited_text(path), str(path), path.stem)


def read_text(content: str, file: str, name: str = "") -> MachineDescription:
    """Read a machine from text of any of the formats; ``file`` names it in errors."""
    if content.lstrip()[:1] == "{":
        found = read_recording(content, file)
    elif _is_ours(content):
        found = text.read_text(content, file)
    else:
        found = read_lspci(content, file, name)
    return _checked(found, file)


def _is_ours(content: str) -> bool:
    if _HEX.search(content):
        return False
    lines = (line.partition("#")[0].strip() for line in content.splitlines())
    first = next((line for line in lines if line), "")
    return _OUR_TEXT.match(first) is not None


def _checked(found: MachineDescription, file: str) -> MachineDescription:
    """Read the tables now, so that a bad one is reported with its file."""
    if found.ivrs is not None:
        read_ivrs(found.ivrs, f"{file} (IVRS)")
    if found.dmar is not None:
        read_dmar(found.dmar, f"{file} (DMAR)")
    return found


def _read_folder(folder: Path) -> MachineDescription:
    if sysfs.config_files(folder):
        return _checked(sysfs.read_folder(folder), str(folder))
    listings = sorted(path for path in folder.iterdir() if path.name.startswith("lspci") and path.is_file())
    if not listings:
        raise BadInput(str(folder), "", "a folder with lspci output (lspci*.txt), or with config files")
    texts = {path: read_limited_text(path) for path in listings}
    best = max(listings, key=lambda path: (bool(_HEX.search(texts[path])), len(texts[path])))
    found = read_lspci(texts[best], str(best), folder.name, _ids_beside(folder))
    return replace(
        found,
        ivrs=_table(folder, "ivrs", read_ivrs),
        dmar=_table(folder, "dmar", read_dmar),
    )


def _table(folder: Path, name: str, check: Callable[[bytes, str], object]) -> bytes | None:
    """Return a raw ACPI table from ``acpi/NAME.dat`` or ``acpi/NAME``, after reading it once."""
    for path in (folder / "acpi" / f"{name}.dat", folder / "acpi" / name.upper(), folder / f"{name}.dat"):
        if path.is_file():
            data = read_limited(path)
            check(data, str(path))
            return data
    return None


def _ids_beside(folder: Path) -> dict[str, Ids]:
    """Return the ids that were recovered for a listing with names only."""
    path = folder / "ids-from-names.json"
    if not path.is_file():
        return {}
    try:
        entries = json.loads(read_limited_text(path)).items()
        stated = {bdf: str(item.get("id")) for bdf, item in entries}
    except (ValueError, AttributeError, RecursionError):
        raise BadInput(str(path), "", 'JSON such as {"0000:00:1f.2": {"id": "8086:2922"}}') from None
    pairs = ((bdf, re.fullmatch(r"([0-9a-f]{4}):([0-9a-f]{4})", text)) for bdf, text in stated.items())
    return {bdf: (int(match[1], 16), int(match[2], 16)) for bdf, match in pairs if match}


def read_sources(sources: Sequence[str]) -> MachineDescription:
    """Read one machine from several sources; without any, the live machine."""
    return read_machine(sources[0] if sources else "/sys/bus/pci/devices")
