"""Copies of what a kernel shows about its PCI devices, small enough to send: exactly the files that ``sysfs`` reads and
those that explain them. Taken from a list of names, so that nothing else can come along (VPD, serial numbers, DMI).
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field

from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.redact import Redactor
from quiesce.snapshot.sysfs import DEVICES, SIGNATURES, TABLES
from quiesce.snapshot.tree import FolderTree, MemoryTree, Tree, resolve

TOP = "machine"
_DEVICE_FILES = re.compile(
    r"ari_enabled|broken_parity_status|class|(?:current|max)_link_(?:speed|width)|d3cold_allowed|device|driver_override|"
    r"enable|index|irq|label|modalias|msi_bus|numa_node|power_state|removable|reset_method|resource|revision|"
    r"(?:secondary|subordinate)_bus_number|subsystem_(?:device|vendor)|vendor|"
    r"sriov_(?:totalvfs|numvfs|offset|stride|vf_device|drivers_autoprobe)"
)
_DEVICE_LINKS = re.compile(r"driver|iommu|iommu_group|physfn|virtfn[0-9]{1,5}")
_BUS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}")
_GROUP_FILES = ("name", "type", "reserved_regions")
_TABLE_LIMIT = 1 << 20
_TEXT_LIMIT = 1 << 20


@dataclass
class Collection:
    """What was taken, and what could not be."""

    tree: MemoryTree
    functions: int = 0
    short: int = 0
    """Functions of which the kernel showed the first 64 bytes only."""
    tables: list[str] = field(default_factory=list)
    groups: int = 0
    unreadable: list[str] = field(default_factory=list)
    redacted: dict[str, int] | None = None
    """What was taken out, and how often; None when nothing was to be."""


def collect(tree: Tree | None = None, prefix: str = "", *, redact: bool = True) -> Collection:
    """Copy what is of interest out of a tree, by default the running machine's. Raises BadInput without PCI devices."""
    source = FolderTree("/") if tree is None else tree
    names = source.entries(f"{prefix}{DEVICES}")
    if not names:
        raise BadInput(source.label, "", f"PCI functions in {DEVICES}")
    redactor = Redactor() if redact else None
    found = Collection(MemoryTree(TOP), redacted=redactor.counts if redactor else None)
    copier = _Copier(source, prefix, found, redactor)
    for name in names:
        copier.device(name)
    copier.groups()
    copier.units()
    copier.tables()
    copier.proc()
    return found


@dataclass
class _Copier:
    source: Tree
    prefix: str
    found: Collection
    redactor: Redactor | None

    def file(self, path: str, data: bytes | None) -> None:
        """Keep a file."""
        if data is not None:
            self.found.tree.add(path, data)

    def text(self, path: str, how: str | None = "text") -> bool:
        """Copy a text, redacted by the method of that name; returns whether it was there."""
        data = self.source.read(f"{self.prefix}{path}", _TEXT_LIMIT)
        if data is None:
            return False
        if self.redactor is not None and how is not None:
            change = getattr(self.redactor, how)
            data = change(data.decode("utf-8", "replace")).encode()
        self.file(path, data)
        return True

    def device(self, name: str) -> None:
        """Copy one function and the link that leads to it."""
        link = self.source.link(f"{self.prefix}{DEVICES}/{name}")
        folder = resolve(self.source, f"{self.prefix}{DEVICES}/{name}")
        if folder is None or not folder.startswith(self.prefix):
            self.found.unreadable.append(f"{DEVICES}/{name}: leads nowhere")
            return
        place = folder.removeprefix(self.prefix)
        if link is not None:
            self.found.tree.add(f"{DEVICES}/{name}", link=link)
        self.found.functions += 1
        for entry in self.source.entries(folder):
            if _DEVICE_FILES.fullmatch(entry):
                self.text(f"{place}/{entry}")
            elif _DEVICE_LINKS.fullmatch(entry):
                target = self.source.link(f"{folder}/{entry}")
                if target is not None:
                    self.found.tree.add(f"{place}/{entry}", link=target)
            elif entry == "config":
                self.config(f"{place}/{entry}", name)
            elif entry == "pci_bus":
                for bus in filter(_BUS.fullmatch, self.source.entries(f"{folder}/{entry}")):
                    self.found.tree.add(f"{place}/{entry}/{bus}")

    def config(self, path: str, name: str) -> None:
        """Copy config space as far as it can be read."""
        data = self.source.read(f"{self.prefix}{path}", r.PCI_CFG_SPACE_EXP_SIZE)
        if not data:
            self.found.unreadable.append(f"{name}: its config space")
            return
        self.found.short += len(data) <= r.PCI_STD_HEADER_SIZEOF
        self.file(path, data if self.redactor is None else self.redactor.config(data))

    def groups(self) -> None:
        """Copy what is said about each IOMMU group; who is in it follows from the links of the devices."""
        top = "sys/kernel/iommu_groups"
        for number in self.source.entries(f"{self.prefix}{top}"):
            if number.isdigit():
                self.found.groups += 1
                for name in _GROUP_FILES:
                    self.text(f"{top}/{number}/{name}")

    def units(self) -> None:
        """Copy the names of the IOMMUs; that there are none is worth knowing too."""
        top = "sys/class/iommu"
        if self.source.is_folder(f"{self.prefix}{top}"):
            self.found.tree.add(top)
            for name in self.source.entries(f"{self.prefix}{top}"):
                self.found.tree.add(f"{top}/{name}", link=self.source.link(f"{self.prefix}{top}/{name}") or ".")

    def tables(self) -> None:
        """Copy the ACPI tables that are about PCI devices and IOMMUs, no other: some hold licence keys."""
        for name in self.source.entries(f"{self.prefix}{TABLES}"):
            if name.rstrip("0123456789") in SIGNATURES:
                data = self.source.read(f"{self.prefix}{TABLES}/{name}", _TABLE_LIMIT)
                if data:
                    self.file(f"{TABLES}/{name}", data)
                    self.found.tables.append(name)
                else:
                    self.found.unreadable.append(f"the ACPI table {name}")

    def proc(self) -> None:
        """Copy the few files of /proc."""
        for path, how in (
            ("proc/cmdline", "command_line"),
            ("proc/version", "version"),
            ("proc/sys/kernel/osrelease", None),
            ("proc/interrupts", "text"),
            ("proc/modules", "modules"),
        ):
            if not self.text(path, how):
                self.found.unreadable.append(f"/{path}")


def packed(tree: MemoryTree) -> bytes:
    """Return a tree as a compressed tar, without owners and times; the same tree gives the same bytes."""
    import gzip

    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.GNU_FORMAT) as archive,
    ):
        for member, data in _members(tree):
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _members(tree: MemoryTree) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    for path in sorted({*tree.folders, *tree.files, *tree.links}):
        member = tarfile.TarInfo(f"{TOP}/{path}" if path else TOP)
        data = tree.files.get(path, b"")
        if path in tree.links:
            member.type, member.linkname, member.mode = tarfile.SYMTYPE, tree.links[path], 0o777
        elif path in tree.files:
            member.size = len(data)
        else:
            member.type, member.mode = tarfile.DIRTYPE, 0o755
        yield member, data
