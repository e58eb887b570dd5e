"""What is looked at after every step: the same names and the same text from the model and from a real kernel.

An observation maps a subject and a field to a text, so that comparing the two sides is comparing texts. The subject
is a device (``0000:00:05.0``) or ``system``. docs/observations.md says what each field means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Observation = dict[tuple[str, str], str]
"""(subject, field) -> text."""

SYSTEM = "system"
"""The subject of what is no device's."""

UNSEEN = "?"
"""This kernel, or this moment, does not show it; it neither agrees nor differs."""
ABSENT = "-"
"""There is no such thing: no capability, or no device that could have it."""
GONE = "gone"
"""The device does not answer config requests."""
NONE = "none"
"""There are none of them."""


@dataclass(frozen=True, slots=True)
class Field:
    """One thing that is looked at."""

    family: str
    """The family in the agreement table; as the families of rules where there is one."""
    meaning: str
    kernel: str
    """What it is in the kernel's source, or in the hardware."""
    guest: str
    """Where it is read from in a guest: config space, structure, sysfs, proc, log or steps."""


_BELIEF = "structure"

DEVICE_FIELDS: Mapping[str, Field] = {
    # -- on the bus, with which driver
    "present": Field("device", "on the lists of its bus", "pci_bus.devices", _BELIEF),
    "driver": Field("device", "name of the bound driver", "device.driver", _BELIEF),
    "driver_override": Field("device", "the only driver it may have", "pci_dev.driver_override", _BELIEF),
    "match_driver": Field("device", "drivers may be matched with it", "pci_dev.match_driver", _BELIEF),
    "enable_cnt": Field("device", "how often it was enabled", "pci_dev.enable_cnt", _BELIEF),
    "is_busmaster": Field("device", "a driver made it bus master", "pci_dev.is_busmaster", _BELIEF),
    "error_state": Field("device", "normal, frozen or perm_failure", "pci_dev.error_state", _BELIEF),
    "current_state": Field("device", "the power state the kernel takes it to be in", "pci_dev.current_state", _BELIEF),
    "state_saved": Field("device", "its config space is saved", "pci_dev.state_saved", _BELIEF),
    "vfs": Field("device", "how many virtual functions are on", "pci_sriov.num_VFs", _BELIEF),
    "reset_methods": Field("device", "how it would be reset, best first", "pci_dev.reset_methods", "sysfs"),
    # -- what the silicon says
    "io": Field("device", "COMMAND: answers I/O requests", "PCI_COMMAND_IO", "config"),
    "mem": Field("device", "COMMAND: answers memory requests", "PCI_COMMAND_MEMORY", "config"),
    "master": Field("device", "COMMAND: may send requests", "PCI_COMMAND_MASTER", "config"),
    "power": Field("device", "power state in the PM capability", "PCI_PM_CTRL", "config"),
    "pin": Field("irq", "the interrupt pin it has", "PCI_INTERRUPT_PIN", "config"),
    "intx_disable": Field("irq", "COMMAND: must not assert its pin", "PCI_COMMAND_INTX_DISABLE", "config"),
    "msi": Field("msi", "MSI is on in the device", "PCI_MSI_FLAGS_ENABLE", "config"),
    "msix": Field("msi", "MSI-X is on in the device", "PCI_MSIX_FLAGS_ENABLE", "config"),
    "msix_masked": Field("msi", "all of MSI-X is masked in the device", "PCI_MSIX_FLAGS_MASKALL", "config"),
    # -- interrupts
    "irq": Field("irq", "what its number stands for: none, firmware, line, message", "pci_dev.irq", _BELIEF),
    "line_handlers": Field("irq", "handlers on its line, its neighbours' too", "irq_desc.action", "proc"),
    "msi_enabled": Field("msi", "MSI is on, the kernel believes", "pci_dev.msi_enabled", _BELIEF),
    "msix_enabled": Field("msi", "MSI-X is on, the kernel believes", "pci_dev.msix_enabled", _BELIEF),
    "vectors": Field("msi", "how many message interrupts it has", "msi_desc", "sysfs"),
    "message_handlers": Field("msi", "handlers on its message interrupts", "irq_desc.action", "proc"),
    # -- managed resources
    "is_managed": Field("devres", "pcim_enable_device is in force", "pci_dev.is_managed", _BELIEF),
    "devres": Field("devres", "managed resources without a driver: none, some", "device.devres_head", _BELIEF),
    # -- isolation
    "iommu": Field("iommu", "the IOMMU core keeps data for it", "device.iommu", _BELIEF),
    "dma": Field("iommu", "which way DMA mappings are made: iommu, direct", "device.dma_ops", _BELIEF),
    "group": Field("group", "who is in its IOMMU group", "device.iommu_group", _BELIEF),
    "group_type": Field("group", "type of the group's default domain", "iommu_group.default_domain", _BELIEF),
    "group_domain": Field("group", "which domain the group is in", "iommu_group.domain", _BELIEF),
    "group_held": Field("group", "others than its devices hold it", "iommu_group.devices_kobj", _BELIEF),
    "group_users": Field("vfio", "how many use the group's DMA", "iommu_group.owner_cnt", _BELIEF),
    "group_owner": Field("vfio", "user space owns the group's DMA", "iommu_group.owner", _BELIEF),
}
"""What is looked at of every device."""

SYSTEM_FIELDS: Mapping[str, Field] = {
    "groups": Field("group", "how the devices are parted into groups", "iommu_group", _BELIEF),
    "empty_groups": Field("group", "how many groups nobody is in", "iommu_group_kset", _BELIEF),
    "alarms": Field("message", "what the kernel complained of in this step", "printk", "log"),
    "taint": Field("message", "marks of complaints so far: D (oops), L (lockup), W (warning)", "tainted_mask", _BELIEF),
    "waits": Field("context", "the operation of this step does not end", "task state", "steps"),
}
"""What is looked at of the whole."""

FIELDS: Mapping[str, Field] = {**DEVICE_FIELDS, **SYSTEM_FIELDS}
"""Everything that is looked at, by name."""

HARDWARE_FIELDS: tuple[str, ...] = tuple(name for name, field in DEVICE_FIELDS.items() if field.guest == "config")
"""What the silicon says by itself, whether or not a kernel runs."""
BELIEF_FIELDS: tuple[str, ...] = tuple(name for name in DEVICE_FIELDS if name not in HARDWARE_FIELDS)
"""What only a kernel knows."""


def flag(value: object) -> str:
    """Return ``1`` or ``0``."""
    return "1" if value else "0"


def unseen(subject: str, names: tuple[str, ...] = BELIEF_FIELDS) -> Observation:
    """Return an observation in which nothing of these fields is to be seen."""
    return {(subject, name): UNSEEN for name in names}


def not_there(subject: str) -> Observation:
    """Return what a kernel knows of a device that is on none of its buses."""
    return {(subject, name): ABSENT for name in BELIEF_FIELDS} | {(subject, "present"): "0"}


def system_unseen() -> Observation:
    """Return the observation of a whole that nothing is to be seen of."""
    return {(SYSTEM, name): UNSEEN for name in SYSTEM_FIELDS}


def partition(groups: list[tuple[str, ...]]) -> str:
    """Return groups as text: members with blanks between them, groups with bars."""
    return " | ".join(sorted(" ".join(sorted(group)) for group in groups)) or NONE
