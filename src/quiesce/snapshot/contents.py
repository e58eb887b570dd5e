"""What one file holds, by its content: descriptions, as many as there are kinds of things in it.

A mail may hold lspci output, a boot log and tables one after another; every reader takes what it understands. A reader
is imported when there is something for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import FunctionDescription, MachineDescription
from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.kernel_log import is_kernel_log
from quiesce.snapshot.lspci_plain import read_plain

if TYPE_CHECKING:
    from quiesce.snapshot.lspci_verbose import Ids

_OUR_TEXT = re.compile(r"^\s*(machine\s+\S+\s*$|([0-9a-fA-F:]+\.[0-7])\s+[a-z][a-z0-9-]*(\s|$))", re.MULTILINE)
_HEX = re.compile(r"^[^\S\n]*[0-9a-fA-F]{2}: [0-9a-fA-F]{2} ", re.MULTILINE)
_CMDLINE = re.compile(r"^.{0,40}?\b(BOOT_IMAGE=\S{1,400}.{0,4000})$", re.MULTILINE)
_RELEASE_IN_IMAGE = re.compile(r"BOOT_IMAGE=\S*?vmlinu[xz]-([0-9]\S*)")
_CONFIG_NAME = re.compile(
    r"(?:([0-9a-fA-F]{4,8})[:-])?([0-9a-fA-F]{2})[:-]([01][0-9a-fA-F])[.-]([0-7])(?:\.(?:config|bin|cfg|conf))?"
)
_SIZES = (r.PCI_STD_HEADER_SIZEOF, r.PCI_CFG_SPACE_SIZE, r.PCI_CFG_SPACE_EXP_SIZE)
_SIGNATURE = re.compile(rb"[A-Z][A-Z0-9_!]{3}")
_PACKED = (b"PK\3\4", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")
"""How zip archives and what gzip, bzip2 and xz compress begin."""
_OF_LSPCI = re.compile(
    r"^[>\s]*(?:Slot:\s*)?(?:[0-9a-fA-F]{4,8}:)?[0-9a-fA-F]{2}:[01][0-9a-fA-F]\.[0-7][\s\"]|-\[[0-9a-fA-F]{4}:[0-9a-fA-F]{2}|"
    r"IOMMU [Gg]roup:? [0-9]",
    re.MULTILINE,
)
"""A line that lspci prints, or a listing of groups."""


@dataclass
class Contents:
    """What was found so far, and what of it could not be read."""

    machines: list[MachineDescription] = field(default_factory=list)
    loose: dict[Bdf, FunctionDescription] = field(default_factory=dict)
    """Functions whose config space came as a file each."""
    refused: list[BadInput] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def gathered(self, name: str, label: str) -> list[MachineDescription]:
        """Return the descriptions, with the loose functions as one of them."""
        if not self.loose:
            return self.machines
        functions = tuple(self.loose[bdf] for bdf in sorted(self.loose))
        return [MachineDescription(name=name, functions=functions, source=label), *self.machines]


def config_address(name: str) -> Bdf | None:
    """Return the address in the name of a file with config space, such as ``0000-00-1f.2.config``."""
    match = _CONFIG_NAME.fullmatch(name)
    if match is None:
        return None
    return Bdf(int(match[1] or "0", 16), int(match[2], 16), int(match[3], 16), int(match[4]))


def read_config(into: Contents, data: bytes, bdf: Bdf, file: str) -> None:
    """Take the bytes of one function."""
    if len(data) not in _SIZES:
        raise BadInput(file, "", f"64, 256 or 4096 bytes of config space, found {len(data)}")
    into.loose.setdefault(bdf, FunctionDescription(bdf, data))


def is_archive(data: bytes) -> bool:
    """Whether the data is an archive, or compressed."""
    return data.startswith(_PACKED) or data[257:262] == b"ustar"


def is_table(data: bytes) -> bool:
    """Whether the data begins with an ACPI table (ACPI 6.5 section 5.2.6): signature, length, checksum."""
    length = int.from_bytes(data[4:8], "little")
    return _SIGNATURE.match(data) is not None and 36 <= length <= len(data) and sum(data[:length]) & 0xFF == 0


def looks_like_table(data: bytes) -> bool:
    """The same of a table whose checksum or length is wrong: what is behind the signature is no text."""
    return data[:4] in (b"DMAR", b"IVRS", b"IORT", b"VIOT", b"APIC", b"MCFG") and b"\0" in data[:36]


def read_tables(into: Contents, data: bytes, file: str) -> None:
    """Take raw ACPI tables, or the text of acpidump."""
    from quiesce.snapshot.acpi import READERS
    from quiesce.snapshot.acpidump import read_acpi

    found = read_acpi(data, file)
    tables = dict(found.tables)
    ivrs, dmar = tables.pop("IVRS", (None,))[0], tables.pop("DMAR", (None,))[0]
    kept = {name: value for name, value in tables.items() if name in READERS}
    machine = MachineDescription(
        name="", functions=(), ivrs=ivrs, dmar=dmar, source=file, tables=kept, notes=found.notes
    )
    into.machines.append(checked(machine, file))


def read_text(into: Contents, text: str, file: str, name: str, ids: Mapping[str, Ids] | None = None) -> None:
    """Take all that is understood of a text; raises BadInput when that is nothing."""
    plain = read_plain(text, file, name)
    if plain is not None:
        into.machines.append(plain)
    elif text.lstrip()[:1] == "{":
        from quiesce.snapshot.qemu_recording import read_recording

        into.machines.append(checked(read_recording(text, file), file))
    elif _is_ours(text):
        from quiesce.snapshot import text as own_text

        into.machines.append(checked(own_text.read_text(text, file), file))
    else:
        _read_paste(into, text, file, name, ids)


def _is_ours(text: str) -> bool:
    if _HEX.search(text):
        return False
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    first = next((line for line in lines if line), "")
    return _OUR_TEXT.match(first) is not None


def _read_paste(into: Contents, text: str, file: str, name: str, ids: Mapping[str, Ids] | None) -> None:
    """Let each reader take what it understands; the error of the first that was meant counts when none does."""
    errors: list[BadInput] = []
    readers: list[Callable[[], None]] = []
    if " @ " in text and _is_acpidump(text):
        readers.append(lambda: read_tables(into, text.encode("utf-8", "replace"), file))
    if is_kernel_log(text):
        readers.append(lambda: into.machines.append(_read_dmesg(text, file, name)))
    if not readers or _OF_LSPCI.search(text):
        readers.append(lambda: into.machines.append(_read_lspci(text, file, name, ids)))
    for reader in readers:
        try:
            reader()
        except BadInput as bad:
            errors.append(bad)
    if len(errors) == len(readers):
        raise errors[0]


def _is_acpidump(text: str) -> bool:
    from quiesce.snapshot.acpidump import is_acpidump

    return is_acpidump(text)


def _read_lspci(text: str, file: str, name: str, ids: Mapping[str, Ids] | None) -> MachineDescription:
    from quiesce.snapshot.lspci import read_lspci

    return _with_cmdline(read_lspci(text, file, name, ids), text)


def _read_dmesg(text: str, file: str, name: str) -> MachineDescription:
    from quiesce.snapshot.dmesg import read_dmesg

    return read_dmesg(text, file, name)


def _with_cmdline(found: MachineDescription, text: str) -> MachineDescription:
    """Take the kernel's command line from a text that shows it, and the release from the name of the image in it."""
    match = _CMDLINE.search(text) if "BOOT_IMAGE=" in text else None
    if match is None:
        return found
    release = _RELEASE_IN_IMAGE.match(match[1])
    return replace(found, cmdline=match[1].strip(), kernel=release[1] if release else None)


def checked(found: MachineDescription, file: str) -> MachineDescription:
    """Read the tables now, so that a bad one is reported with its file."""
    if found.ivrs is not None:
        from quiesce.snapshot.ivrs import read_ivrs

        read_ivrs(found.ivrs, f"{file} (IVRS)")
    if found.dmar is not None:
        from quiesce.snapshot.dmar import read_dmar

        read_dmar(found.dmar, f"{file} (DMAR)")
    return found
