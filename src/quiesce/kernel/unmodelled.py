"""Differences between kernels that are known and that the model does not have, so that it can say so."""

from __future__ import annotations

from quiesce.kernel.kernelset import Change

_KNOWN = (
    Change("9dcd61303af8", "v3.6-rc1", "iommu/amd", "AMD driver fills IOMMU groups"),
    Change(
        "b4b55cda5874",
        "v4.0-rc1",
        "x86/PCI irq",
        "release PCI IRQ at UNBOUND_DRIVER notification instead of at disable",
    ),
    Change(
        "1851617cd2da",
        "v4.2-rc1",
        "PCI/MSI enumeration",
        "clear MSI enables at enumeration even without CONFIG_PCI_MSI",
    ),
    Change("amd-device-group", "v4.4-rc1", "iommu/amd", "the AMD driver forms groups with pci_device_group()"),
    Change("e80e7edc55ba", "v4.5-rc1", "PCI/MSI enumeration", "initialise MSI capability for every architecture"),
    Change("pci-assign-irq", "v4.13-rc1", "PCI core", "host bridges with map_irq assign the legacy IRQ at probe"),
    Change("uevent-unbind", "v4.14-rc1", "driver core", "user space is told of bind and unbind"),
    Change("44bda4b7d26e", "v4.18", "PCI core", "is_added and is_busmaster no longer share a bitfield"),
    Change("bdb5ac85777d", "v4.20-rc1", "PCI/AER", "fatal errors use the callback flow"),
    Change("bfcb79fca19d", "v4.20-rc1", "PCI/AER", "recovery callbacks run for every affected device"),
    Change("c4eed62a2143", "v4.20-rc1", "PCI/AER", "recovery uses slot reset if present"),
    Change("60271ab044a5", "v4.20-rc1", "PCI/AER", "AER holds references on error devices"),
    Change("e045fa29e893", "v5.5-rc1", "PCI/MSI", "restore the right MSI-X mask on resume"),
    Change("35ff867b7657", "v5.5-rc1", "PCI SR-IOV", "numvfs read and write serialised by device_lock"),
    Change("6d2c89441571", "v5.7-rc1", "PCI/AER", "status follows reset result"),
    Change("1a519dc7a73c", "v5.14", "PCI/MSI", "no MSI-X masking on Xen PV"),
    Change("77e89afc25f3", "v5.14-rc7", "PCI/MSI", "lock around cached multi-MSI mask"),
    Change("2226667a145d", "v5.16-rc1", "PCI/MSI", "devices that lie about per-vector mask support"),
    Change("53b54ad074de", "v6.3-rc1", "PCI/DPC", "DPC waits for the secondary bus"),
    Change("f5eff5591b8f", "v6.4-rc1", "PCI hotplug", "pciehp drops reset_lock while unbinding"),
    Change(
        "456d8aa37d0f", "v6.5-rc1", "PCI ASPM", "ASPM state torn down when a function of a multifunction device goes"
    ),
    Change("8b6f173a4ce4", "v6.6-rc1", "vfio", "VFIO character device per device"),
    Change("2e84dc379200", "v6.7-rc1", "driver core", "all resources released before device links change"),
    Change("4fc82cd907ac", "v6.9-rc1", "iommu/vt-d", "no ATS invalidation to a disconnected device"),
    Change("remove-runtime-pm-barrier", "v6.9-rc1", "PCI core", "pci_device_remove() waits for runtime PM"),
    Change("f00059b4c1b0", "v6.11-rc1", "drm", "vboxvideo: mapping leak because a function was assumed managed"),
    Change("11a1f4bc4736", "v6.11-rc1", "PCI/DPC", "reference held on the child while DPC waits"),
    Change("c7acef99642b", "v6.13-rc1", "PCI hotplug", "slot holds a reference on its bus"),
    Change("ce45dc4bb22e", "v6.16-rc1", "PCI core", "match_driver becomes a PCI-core private flag"),
    Change("c3be50f7547c", "v6.16-rc1", "PCI hotplug/DPC", "pciehp ignores presence changes caused by DPC"),
    Change(
        "2af781a9edc4", "v6.16-rc1", "PCI hotplug/reset", "pciehp ignores link changes caused by a secondary bus reset"
    ),
    Change("466861909255", "v6.17-rc1", "PCI hotplug", "pnv_php frees IRQs on unplug"),
    Change(
        "e94160488e65", "v6.19-rc1", "iommu", "a released device with reserved memory is left in an identity domain"
    ),
    Change("c279e83953d9", "v7.0-rc1", "iommu", "translation blocked while a PCI function is reset"),
)


def unmodelled() -> tuple[Change, ...]:
    """Return them in order of release."""
    return _KNOWN
