"""Which group a device behind an AMD IOMMU joins, above all when firmware names an alias that no device has
(drivers/iommu/amd_iommu.c, and ways that were proposed).
"""

from __future__ import annotations

from quiesce.kernel import changes
from quiesce.kernel.amd_alias import ivrs_alias, last_alias
from quiesce.kernel.amd_dev_data import AmdDevData, find_dev_data
from quiesce.kernel.device_group import pci_device_group
from quiesce.kernel.iommu_group import IommuGroup, iommu_group_alloc, iommu_group_ref_get
from quiesce.kernel.kernel import Crash, Kernel
from quiesce.kernel.objects import PciDev
from quiesce.kernel.pci_access import pci_dev_of
from quiesce.kernel.pci_acs import acs_path_root, pci_acs_enabled, pci_multifunction
from quiesce.snapshot.bdf import Bdf


def device_group(k: Kernel, dev: PciDev) -> IommuGroup:
    """drivers/iommu/amd_iommu.c. Kept: the driver's own search up to v3.16, the common one since (v4.4+ by
    ``amd_iommu_device_group``). Proposals come first: they are about aliases, and leave the rest to what the kernel
    has.
    """
    if k.has(changes.SWITCH_ALIAS_DEREF):
        dev = _named_by_alias(k, dev)
    found = _proposed_group(k, dev)
    if found is not None:
        return found
    return pci_device_group(k, dev) if k.has(changes.CENTRAL_GROUP_LOOKUP) else _own_search(k, dev)


def _named_by_alias(k: Kernel, dev: PciDev) -> PciDev:
    """The instrumented kernel with its switch ``alias-deref``: the function behind the alias takes the place of the
    device; nobody asks whether it is there.
    """
    alias = ivrs_alias(k, dev.hw.bdf)
    named = pci_dev_of(k, str(alias))
    if named is None:
        raise _no_function_at(k, dev, alias, "pci_device_group")
    return named


def _no_function_at(k: Kernel, dev: PciDev, alias: Bdf, function: str) -> Crash:
    return k.crash(
        "iommu/alias-without-device",
        "BUG: unable to handle kernel NULL pointer dereference",
        f"the IVRS table says that {dev.bdf} sends as {alias}, where no device is; the lookup gave NULL and is used",
        function,
    )


# -- proposals ---------------------------------------------------------------------------------------------------


def _proposed_group(k: Kernel, dev: PciDev) -> IommuGroup | None:
    if k.has(changes.IOMMU_GROUP_BUS_PRIVATE):
        return _same_requester_group(k, dev)
    alias = ivrs_alias(k, dev.hw.bdf)
    if alias == dev.hw.bdf or pci_dev_of(k, str(alias)) is not None:
        return None
    if k.has(changes.AMD_ALIAS_DEV_DATA_GROUP):
        return _alias_group(k, alias)
    if k.has(changes.AMD_ALIAS_TABLE_WALK):
        return alias_table_walk(k, dev)
    return None


def _alias_group(k: Kernel, alias: Bdf) -> IommuGroup | None:
    data = find_dev_data(k, alias)
    return None if data is None else use_dev_data_group(k, data)


def use_dev_data_group(k: Kernel, alias_data: AmdDevData) -> IommuGroup:
    """``use_dev_data_iommu_group``. Kept: the group is made for the first device that uses the alias; the reference is
    held for as long as the data, that is for ever, so that group and number stay when the last device is unplugged.
    """
    if alias_data.group is None:
        alias_data.group = iommu_group_ref_get(iommu_group_alloc(k), f"static:{alias_data.path}")
    return alias_data.group


def alias_table_walk(k: Kernel, dev: PciDev) -> IommuGroup | None:
    """Proposed (September 2012). Kept: of the devices that are there and have the same alias in the IVRS table, the
    first one that has a group lends it. Without one the device is grouped as if it had no alias, and what comes later
    finds that group: the outcome depends on who is plugged in when, and nothing keeps two walks apart.
    """
    alias = ivrs_alias(k, dev.hw.bdf)
    for other in k.system.devices:
        same = other is not dev and ivrs_alias(k, other.hw.bdf) == alias
        if same and other.iommu_group is not None:
            return _group_of(other)
    k.window(f"alias table walked for {dev.bdf}, no group found")
    return None


def _same_requester_group(k: Kernel, dev: PciDev) -> IommuGroup | None:
    """Proposed (September 2012): the group API knows groups by a bus-private key, here the requester id under which
    requests arrive. Kept: a group is found by the id of any device in it.
    """
    wanted = _requester(k, dev)
    for other in k.system.devices:
        if other is not dev and other.iommu_group is not None and _requester(k, other) == wanted:
            return _group_of(other)
    return None


def _requester(k: Kernel, dev: PciDev) -> Bdf:
    alias = ivrs_alias(k, dev.hw.bdf)
    return alias if alias != dev.hw.bdf or not k.has(changes.FOR_EACH_DMA_ALIAS) else last_alias(k, dev)


# -- the driver's own search, v3.6 to v3.16 ----------------------------------------------------------------------


def _own_search(k: Kernel, dev: PciDev) -> IommuGroup:
    alias = ivrs_alias(k, dev.hw.bdf)
    if alias == dev.hw.bdf:
        return _group_at(k, acs_path_root(k, dev))
    if k.has(changes.AMD_ALIAS_GROUPS):
        return _init_iommu_group(k, dev, alias)
    base = pci_dev_of(k, str(alias))
    if base is None:
        base = _missing_alias(k, dev, alias)
    return _group_at(k, acs_path_root(k, base))


def _missing_alias(k: Kernel, dev: PciDev, alias: Bdf) -> PciDev:
    """``iommu_init_device``, v3.6. Kept: the release candidates look into the alias device without asking whether there
    is one, at boot; the release takes the device itself.
    """
    proposals = (changes.AMD_ALIAS_SELF, changes.AMD_ALIAS_TABLE_WALK, changes.IOMMU_GROUP_BUS_PRIVATE)
    if any(k.has(change) for change in proposals):
        return dev
    raise _no_function_at(k, dev, alias, "iommu_init_device")


def _init_iommu_group(k: Kernel, dev: PciDev, alias: Bdf) -> IommuGroup:
    """``init_iommu_group``, v3.8 to v3.16. Kept: the group that the alias has already; else that of the alias device;
    else, if the bridge above the alias is not the root of its own isolation, the group of that root; else a group
    kept on the alias. An alias whose data could not be allocated groups by the device.
    """
    data = find_dev_data(k, alias)
    if data is None:
        return _group_at(k, acs_path_root(k, dev))
    if data.group is not None:
        return data.group
    base = pci_dev_of(k, str(alias))
    if base is not None:
        return _group_at(k, acs_path_root(k, base))
    bridge = _bridge_to(k, alias)
    if bridge is not None:
        root = acs_path_root(k, bridge)
        if root is not bridge or (pci_multifunction(root) and not pci_acs_enabled(k, root)):
            return _group_at(k, root)
    return use_dev_data_group(k, data)


def _bridge_to(k: Kernel, alias: Bdf) -> PciDev | None:
    """``find_hosted_bus``: the bridge that leads to the bus of an alias."""
    for dev in k.system.devices:
        hw = dev.hw
        if hw.is_bridge and hw.bdf.segment == alias.segment and hw.secondary_bus == alias.bus:
            return dev
    return None


def _group_at(k: Kernel, root: PciDev) -> IommuGroup:
    return _group_of(root) if root.iommu_group is not None else iommu_group_alloc(k)


def _group_of(dev: PciDev) -> IommuGroup:
    group = dev.iommu_group
    assert isinstance(group, IommuGroup)
    return group
