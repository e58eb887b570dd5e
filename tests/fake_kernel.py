"""Small files that look like a kernel, its modules and its folders; nothing in them runs."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

ELF = b"\x7fELF" + b"\0" * 60 + b"the kernel"


def bzimage(
    release: str = "6.12.9-own", payload: bytes | None = None, *, elf: bytes = ELF, relocatable: bool = True
) -> bytes:
    """Return a file with the header of a bzImage, with the ELF file packed or with another payload in its place."""
    packed = gzip.compress(elf) if payload is None else payload
    packed += struct.pack("<I", len(elf))
    head = bytearray(0x1000)
    head[0x1F1] = 7
    head[0x202:0x208] = b"HdrS" + struct.pack("<H", 0x020F)
    struct.pack_into("<H", head, 0x20E, 0x400)
    head[0x234] = relocatable
    struct.pack_into("<II", head, 0x248, 0, len(packed))
    banner = f"{release} (someone@somewhere) #1 SMP\0".encode()
    head[0x600 : 0x600 + len(banner)] = banner
    return bytes(head) + packed


def module(*needs: str) -> bytes:
    """Return a file with the one line of a module that tells what it needs."""
    return b"\x7fELF\0license=GPL\0depends=" + ",".join(needs).encode() + b"\0name=x\0"


def build_tree(folder: Path, release: str = "6.12.9-own", elf: bytes = ELF) -> Path:
    """Make what is left of a kernel build tree after a build."""
    boot = folder / "arch/x86/boot"
    boot.mkdir(parents=True)
    (boot / "bzImage").write_bytes(bzimage(release, elf=elf))
    (folder / ".config").write_text("CONFIG_PCI=y\n")
    (folder / "modules.builtin").write_text("kernel/drivers/pci/hotplug/acpiphp.ko\n")
    for name, needs in (("vfio-pci", ("vfio-pci-core",)), ("vfio-pci-core", ("vfio", "irqbypass"))):
        (folder / f"{name}.ko").write_bytes(module(*needs))
    for name in ("vfio", "irqbypass", "unwanted"):
        (folder / f"{name}.ko").write_bytes(module())
    return folder
