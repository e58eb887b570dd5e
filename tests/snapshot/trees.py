"""Trees like /sys, made by hand."""

from quiesce.snapshot.tree import MemoryTree
from snapshot.snapdata import header

PORT, CARD = "0000:00:1c.0", "0000:03:00.0"


def machine_tree(prefix: str = "", config: bool = True) -> MemoryTree:
    """Return a bridge and a card below it, in two groups, behind VT-d."""
    tree = MemoryTree("tree")
    above = f"{prefix}sys/devices/pci0000:00/{PORT}"
    for folder, ids, class_code, group, up in (
        (above, (0x8086, 0xA110), 0x060400, "1", "../" * 3),
        (f"{above}/{CARD}", (0x8086, 0x1533), 0x020000, "2", "../" * 4),
    ):
        name = folder.rpartition("/")[2]
        if config:
            data = header(ids[0], ids[1], class_code, kind=int(class_code == 0x060400), size=4096)
            tree.add(f"{folder}/config", data)
        for file, text in (("vendor", f"{ids[0]:#06x}"), ("device", f"{ids[1]:#06x}"), ("class", f"{class_code:#08x}")):
            tree.add(f"{folder}/{file}", f"{text}\n".encode())
        tree.add(f"{folder}/iommu_group", link=f"{up}kernel/iommu_groups/{group}")
        tree.add(f"{folder}/numa_node", b"0\n")
        tree.add(f"{prefix}sys/kernel/iommu_groups/{group}/type", b"DMA-FQ\n")
        tree.add(f"{prefix}sys/bus/pci/devices/{name}", link=f"../../../{folder.removeprefix(f'{prefix}sys/')}")
    tree.add(f"{above}/{CARD}/driver", link="../../../../bus/pci/drivers/igb")
    tree.add(f"{above}/{CARD}/vpd", b"secret")
    tree.add(f"{prefix}sys/class/iommu/dmar0", link="../../devices/virtual/iommu/dmar0")
    tree.add(
        f"{prefix}proc/cmdline",
        b"BOOT_IMAGE=/boot/vmlinuz-6.1.0 root=UUID=01234567-89ab-cdef-0123-456789abcdef ro intel_iommu=on\n",
    )
    tree.add(f"{prefix}proc/version", b"Linux version 6.1.0-x (someone@somewhere) (gcc) #1 SMP\n")
    return tree
