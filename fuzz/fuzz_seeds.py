"""What fuzzing begins with: pieces of what ships with the project, and of the corpus beside it when that is there."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from base64 import b64decode
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from quiesce.snapshot import acpi

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "src" / "quiesce" / "cases" / "machines"
CORPUS = ROOT.parent / "shared" / "data"
_SLICE = 3000
"""Text is cut into pieces of about this size: short inputs run often, and still have several functions."""


def _recordings() -> Iterator[dict[str, Any]]:
    for path in sorted(SHIPPED.glob("*.json")):
        yield json.loads(path.read_text())


_TABLE = 1200
"""Larger tables are cut, for the same reason."""


@lru_cache
def table_of_a_recording() -> bytes:
    """Return one DMAR table."""
    return tables("DMAR")[0]


def tables(signature: str) -> list[bytes]:
    """Return tables of a kind: of recordings, of the corpus when it is there, and one with nothing in it."""
    found = {b64decode(item["acpi"][signature]): None for item in _recordings() if signature in item.get("acpi", {})}
    for path in sorted(CORPUS.glob(f"**/{signature.lower()}.dat"))[:40]:
        found[path.read_bytes()] = None
    return [table if len(table) <= _TABLE else sealed(table[:_TABLE]) for table in found] or [_empty(signature)]


def _empty(signature: str) -> bytes:
    return sealed(signature.encode() + bytes(96))


def sealed(table: bytes) -> bytes:
    """Put length and checksum of a table right."""
    if len(table) < 36:
        return table
    whole = bytearray(table)
    whole[4:8] = len(table).to_bytes(4, "little")
    whole[9] = (whole[9] - sum(whole)) & 0xFF
    return bytes(whole)


def dumps() -> list[bytes]:
    """Return files of tables, raw and as acpidump prints them."""
    made = [_dumped(*(tables(name)[0] for name in ("DMAR", "APIC"))), b"".join(tables("MCFG")[:2])]
    return made + [dump for dump in _slices(*_text_files("acpi/linuxhw", "*.acpidump.txt")) if b" @ 0x" in dump]


def _dumped(*tables: bytes) -> bytes:
    lines: list[str] = []
    for table in tables:
        lines.append(f"{table[:4].decode('latin-1')} @ 0x0000000000000000")
        lines += [f"    {at:04X}: {table[at : at + 16].hex(' ')}" for at in range(0, len(table), 16)]
    return "\n".join(lines).encode()


def listings() -> list[bytes]:
    """Return listings of iasl."""
    table = table_of_a_recording()
    rows = (f"[{item.offset:03X}h {item.offset:04d} {item.size:03X}h] {item.name} : 00" for item in acpi.fields(table))
    return ["\n".join(rows).encode(), *_slices(*sorted(CORPUS.glob("acpi/linuxhw/*.dsl"))[:10])]


def _slices(*paths: Path) -> list[bytes]:
    """Return pieces of files, each beginning where a line does."""
    found: list[bytes] = []
    for path in paths:
        data = path.read_bytes()
        for start in range(0, min(len(data), 10 * _SLICE), _SLICE):
            piece = data[start : start + _SLICE]
            found.append(piece if not start else piece[piece.find(b"\n") + 1 :])
    return found


def hex_dumps() -> list[bytes]:
    """Return pieces of lspci -xxx."""
    shipped = [item["lspci_xxxx"].encode()[:_SLICE] for item in _recordings() if "lspci_xxxx" in item]
    made = b"00:1f.2 SATA controller: Intel Corporation Device 2922 (rev 02)\n" + b"".join(
        f"{at:02x}: {bytes((0x86, 0x80, 0x22, 0x29, *range(12))).hex(' ')}\n".encode() for at in range(0, 256, 16)
    )
    return [made, *shipped, *_slices(*_text_files("hexdumps"))]


def _text_files(folder: str, pattern: str = "**/*.txt", most: int = 12) -> list[Path]:
    return [path for path in sorted(CORPUS.glob(f"{folder}/{pattern}")) if path.is_file()][:most]


_VERBOSE = b"""00:00.0 Host bridge [0600]: Intel Corporation Device [8086:29c0]
\tSubsystem: Red Hat, Inc. Device [1af4:1100]
\tControl: I/O- Mem+ BusMaster- SpecCycle- MemWINV- VGASnoop- ParErr- Stepping- SERR+ FastB2B- DisINTx-
\tLatency: 0
\tIOMMU group: 0

00:1c.0 PCI bridge [0604]: Intel Corporation Device [8086:a110] (rev f1) (prog-if 00 [Normal decode])
\tBus: primary=00, secondary=02, subordinate=02, sec-latency=0
\tCapabilities: [40] Express (v2) Root Port (Slot+), MSI 00
\t\tDevCap: MaxPayload 256 bytes, PhantFunc 0
\tCapabilities: [140 v1] Access Control Services
\t\tACSCap: SrcValid+ TransBlk+ ReqRedir+ CmpltRedir+ UpstreamFwd- EgressCtrl- DirectTrans-
\t\tACSCtl: SrcValid+ TransBlk- ReqRedir+ CmpltRedir+ UpstreamFwd- EgressCtrl- DirectTrans-
\tKernel driver in use: pcieport

02:00.0 Ethernet controller [0200]: Intel Corporation Device [8086:10d3]
\tCapabilities: <access denied>
\tKernel modules: e1000e
"""
_TREE = b"""-[0000:00]-+-00.0  Intel Corporation Device 29c0
           +-1c.0-[02]--+-00.0  Intel Corporation 82574L
           |            \\-00.1  Device 8086:10d3
           \\-1f.0  Intel Corporation LPC
"""
_DESCRIPTION = b"""machine small
00:00.0 host-bridge
00:01.0 root-port bus=01-02 acs
01:00.0 igb sriov=4 vf-offset=128 ari
01:00.1 e1000e pin=A msi=4
00:1c.0 pcie-to-pci bus=03
03:02.0 ahci
iommu amd 00:00.2
covers 00:00.0-ff:1f.7
alias 03:00.0-03:1f.7 -> 00:1c.0
reserved 01:00.0 0x1000-0x1fff
route 00:01 A -> 17
"""
_LOG = b"""[    0.000000] Linux version 6.12.1-amd64 (x@y) (gcc) #1 SMP
[    0.000000] Command line: BOOT_IMAGE=/vmlinuz root=/dev/sda1 intel_iommu=on iommu=pt
[    0.300000] PCI host bridge to bus 0000:00
[    0.300001] pci_bus 0000:00: root bus resource [bus 00-ff]
[    0.300002] pci 0000:00:00.0: [8086:29c0] type 00 class 0x060000 conventional PCI endpoint
[    0.300003] pci 0000:00:1c.0: [8086:a110] type 01 class 0x060400 PCIe Root Port
[    0.300004] pci 0000:00:1c.0: PCI bridge to [bus 02]
[    0.300005] pci 0000:02:00.0: [8086:10d3] type 00 class 0x020000 PCIe Endpoint
[    0.400000] DMAR: Intel(R) Virtualization Technology for Directed I/O
[    0.400001] pci 0000:00:00.0: Adding to iommu group 0
"""


def verbose() -> list[bytes]:
    """Return pieces of lspci -v and -t."""
    return [_VERBOSE, _TREE, *_slices(*_text_files("machines", "*/lspci*", 40))]


def descriptions() -> list[bytes]:
    """Return a machine in our own words."""
    return [_DESCRIPTION]


def machines() -> list[bytes]:
    """Return small machines of several formats."""
    return [_DESCRIPTION, _VERBOSE, _TREE]


def logs() -> list[bytes]:
    """Return pieces of boot logs."""
    return [_LOG, *_slices(*_text_files("dmesg"))]


def archives() -> list[bytes]:
    """Return archives."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, data in (("m/lspci.txt", _VERBOSE), ("m/acpi/dmar.dat", table_of_a_recording()), ("m/dmesg", _LOG)):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return [raw.getvalue(), gzip.compress(raw.getvalue(), mtime=0)]


def files() -> list[bytes]:
    """Return files of all kinds, and some that hold several things."""
    table = table_of_a_recording()
    return [
        table,
        table + tables("APIC")[0],
        _dumped(table),
        _VERBOSE + _dumped(table) + _LOG,
        *machines(),
        *archives(),
    ]


def small_recordings() -> list[bytes]:
    """Return recordings of three functions."""
    found: list[bytes] = []
    for item in _recordings():
        item["devices"] = dict(list(item["devices"].items())[:3]) if isinstance(item.get("devices"), dict) else {}
        found.append(json.dumps(item).encode()[:60_000])
    return found


def cases() -> list[bytes]:
    """Return pieces of cases."""
    return [
        path.read_bytes()[:_SLICE] for path in sorted((SHIPPED.parent / "library").glob("*"))[:20] if path.is_file()
    ]


def configs() -> list[bytes]:
    """Return configuration spaces."""
    found = [bytes(range(256)), bytes(4096)]
    for item in _recordings():
        for device in item.get("devices", {}).values() if isinstance(item.get("devices"), dict) else ():
            if isinstance(device, dict) and isinstance(device.get("config"), str):
                found.append(bytes.fromhex(device["config"]))
    return found[:60]
