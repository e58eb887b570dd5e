"""What the AMD IOMMU driver knows of requester ids (drivers/iommu/amd_iommu.c, later drivers/iommu/amd/iommu.c)."""

from __future__ import annotations

from collections.abc import Iterator

from quiesce.kernel import changes, pci_group
from quiesce.kernel.amd_alias import ivrs_alias, last_alias
from quiesce.kernel.iommu_group import IommuDomain, IommuGroup
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PciDev
from quiesce.machine import iommu as hardware
from quiesce.snapshot.bdf import Bdf
from quiesce.world import Field, State, StateList


class AmdDevData(State):
    """``struct iommu_dev_data``, one per requester id, kept for ever; path ``amd/dev_data/BDF``."""

    bdf: Field[str] = Field("")
    domain: Field[IommuDomain | None] = Field(None)
    alias_data: Field[AmdDevData | None] = Field(None)
    """The data of the id under which the requests arrive, when that is another (up to v4.3; later only the id)."""
    bind: Field[int] = Field(0)
    """How many devices hold the attachment (up to v4.1)."""
    group: Field[IommuGroup | None] = Field(None)
    """The group of everything that sends under this id, when no device has it."""
    own_domain: Field[IommuDomain | None] = Field(None)
    """The domain that was allocated for the DMA API of this device (up to v4.1)."""
    passthrough: Field[bool] = Field(False)
    entries: StateList[str] = StateList()
    """Addresses whose device table entries the attachment wrote."""


class AmdIommu(State):
    """``struct amd_iommu``; path ``amd/iommu/N``."""

    dev: Field[PciDev | None] = Field(None)
    """Its own PCI function."""
    int_enabled: Field[bool] = Field(False)


class AmdVi(State):
    """What the driver keeps for all IOMMUs; path ``amd``."""

    dev_data_list: StateList[AmdDevData] = StateList()
    default_domain: Field[IommuDomain | None] = Field(None)
    """For devices without a domain of their own (up to v4.1)."""
    pt_domain: Field[IommuDomain | None] = Field(None)
    """``iommu=pt``: the one domain of all (up to v4.1)."""


def amd_vi(k: Kernel) -> AmdVi:
    """Return the driver's state."""
    return AmdVi.get(k.world, "amd")


def search_dev_data(k: Kernel, bdf: Bdf) -> AmdDevData | None:
    """drivers/iommu/amd_iommu.c. Kept: what is known of a requester id, or None."""
    data = AmdDevData.get(k.world, f"amd/dev_data/{bdf}")
    return data if data.exists else None


def find_dev_data(k: Kernel, bdf: Bdf) -> AmdDevData | None:
    """drivers/iommu/amd_iommu.c. Kept: made at first use, which can fail; never freed afterwards."""
    data = search_dev_data(k, bdf)
    if data is not None:
        return data
    if not k.alloc(f"iommu_dev_data of {bdf}"):
        return None
    data = AmdDevData.new(k.world, f"amd/dev_data/{bdf}", bdf=str(bdf))
    amd_vi(k).dev_data_list.append(data)
    return data


def get_dev_data(dev: PciDev) -> AmdDevData | None:
    """drivers/iommu/amd_iommu.c. Kept: what the device points to (``dev->archdata.iommu``)."""
    data = dev.iommu_priv
    assert data is None or isinstance(data, AmdDevData)
    return data


def check_device(k: Kernel, dev: PciDev) -> bool:
    """drivers/iommu/amd_iommu.c. Kept: whether an IOMMU covers the device (``amd_iommu_rlookup_table``)."""
    return hardware.unit_of(k.machine, dev.hw) is not None


def entries_of(k: Kernel, dev: PciDev) -> Iterator[Bdf]:
    """Yield the requester ids whose device table entries follow the device's: its own, from v4.2 on the one alias, from
    v5.6 on every alias (``clone_aliases``).

    Before, the alias has data of its own. Left out: v4.2 and v4.3 refused to attach a second group to an alias and
    ignored the error.
    """
    seen = [dev.hw.bdf]
    if k.has(changes.CORE_DEFAULT_DOMAINS):
        firmware = ivrs_alias(k, dev.hw.bdf)
        seen.append(firmware if k.has(changes.AMD_DTE_PER_ALIAS) or firmware != dev.hw.bdf else last_alias(k, dev))
    if k.has(changes.AMD_DTE_PER_ALIAS):
        seen += [rid for _, rid in pci_group.pci_for_each_dma_alias(k, dev)]
    return iter(dict.fromkeys(seen))
