"""Kernel modules as files: which are kept in the store, and what each one needs to be loaded first."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Iterable
from pathlib import Path

from quiesce.testbed.bzimage import unpacked

_WANTED = """
    ahci ata_generic ata_piix sd_mod sr_mod nvme nvmet loop null_blk
    megaraid_sas mptsas mptspi mpt3sas sym53c8xx vmw_pvscsi am53c974
    e1000 e1000e igb igbvf ixgbe ixgbevf e100 8139cp 8139too pcnet32 tulip ne2k_pci vmxnet3 af_packet
    virtio_pci virtio_net virtio_blk virtio_scsi virtio_console virtio_rng virtio_balloon virtio_input virtio_iommu
    virtio_mmio virtio_crypto vmw_vsock_virtio_transport
    xhci_pci ehci_pci uhci_hcd ohci_pci usb_storage uas
    vfio vfio_pci vfio_iommu_type1 vfio_virqfd iommufd pci_stub pci_pf_stub uio_pci_generic xen_pciback
    aer_inject pcieport pciehp acpiphp shpchp
    snd_hda_intel snd_intel8x0 snd_ens1370 bochs
    i2c_i801 lpc_ich iTCO_wdt i6300esb sdhci_pci amd64_agp intel_agp parport_pc pvpanic_pci ioatdma
    kvm_intel kvm_amd qemu_fw_cfg
"""

WANTED = tuple(_WANTED.split())
"""The modules that are kept, with all they need; all others of a distribution's four thousand are left out."""

ENDINGS = (".ko", ".ko.xz", ".ko.gz", ".ko.zst")


def module_name(file: str) -> str:
    """Return the name of a module by its file, the way the kernel spells it (``vfio_pci``)."""
    return file.rsplit("/", 1)[-1].split(".ko", 1)[0].replace("-", "_")


def module_files(tree: Path) -> dict[str, Path]:
    """Return the modules below a folder by name."""
    return {module_name(path.name): path for path in sorted(tree.rglob("*.ko*")) if path.name.endswith(ENDINGS)}


def module_data(file: Path) -> bytes:
    """Return a module as the kernel takes it, unpacked."""
    data = file.read_bytes()
    if file.name.endswith(".ko"):
        return data
    try:
        return unpacked(data)
    except (ValueError, zlib.error, lzma.LZMAError, EOFError):
        return b""


def needs(module: bytes) -> list[str]:
    """Return the modules that a module names as those it needs (``depends=`` in its section .modinfo)."""
    start = module.find(b"\0depends=")
    if start < 0:
        return []
    value = module[start + 9 :].split(b"\0", 1)[0].decode("ascii", "replace")
    return [module_name(name) for name in value.split(",") if name]


def keep(tree: Path, folder: Path, wanted: Iterable[str] = WANTED) -> dict[str, list[str]]:
    """Put the wanted modules of a tree and all they need into a folder, unpacked; return what each one needs."""
    files = module_files(tree)
    kept: dict[str, list[str]] = {}
    waiting = [module_name(name) for name in wanted]
    folder.mkdir(parents=True, exist_ok=True)
    while waiting:
        name = waiting.pop()
        data = module_data(files[name]) if name in files and name not in kept else b""
        if data:
            (folder / f"{name}.ko").write_bytes(data)
            kept[name] = needs(data)
            waiting += kept[name]
    return dict(sorted(kept.items()))


def in_load_order(names: Iterable[str], needed: dict[str, list[str]]) -> list[str]:
    """Return the modules in the order in which they can be loaded, each with all it needs before it."""
    order: list[str] = []

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in order or name in above:
            return
        for other in needed.get(name, ()):
            visit(other, (*above, name))
        order.append(name)

    for name in names:
        visit(name, ())
    return order


def builtin_names(tree: Path) -> list[str]:
    """Return the modules that are part of the kernel itself (``modules.builtin`` of the tree)."""
    own = tree / "modules.builtin"
    found = [own] if own.is_file() else sorted(tree.rglob("modules.builtin"))
    return sorted({module_name(line) for line in found[0].read_text("utf-8", "replace").split()}) if found else []
