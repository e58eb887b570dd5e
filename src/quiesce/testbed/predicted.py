"""What the model says there is to see: the fields of an observation, taken from the state of the modelled kernel."""

from __future__ import annotations

from collections.abc import Sequence

from quiesce.explore.model import Outcome
from quiesce.kernel import changes
from quiesce.kernel.dma import dma_path
from quiesce.kernel.dma_iova import DIRECT
from quiesce.kernel.iommu_group import IommuGroup, probes_devices
from quiesce.kernel.irq_desc import desc
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import BusSlot, PciDev
from quiesce.kernel.pci_reset import pci_reset_methods
from quiesce.machine.interrupts import gsi_top
from quiesce.testbed.config_bits import SIZE, config_fields
from quiesce.testbed.message_classes import UNDEFINED
from quiesce.testbed.messages import Listener, alarms_text, model_alarms, taint_after
from quiesce.testbed.observation import (
    ABSENT,
    DEVICE_FIELDS,
    NONE,
    SYSTEM,
    SYSTEM_FIELDS,
    UNSEEN,
    Observation,
    flag,
    not_there,
    partition,
    system_unseen,
    unseen,
)
from quiesce.testbed.values import domain_type, error_state, irq_kind, power_state

_NO_KERNEL = ("off", "shutdown", "crashed", "second", "dead")
"""Phases in which nobody can ask the kernel of the case; there the silicon alone is looked at."""


def predict(k: Kernel, devices: Sequence[str]) -> Observation:
    """Return what there is to see of these devices and of the whole, without messages (``alarms_of``)."""
    seen: Observation = {}
    for bdf in devices:
        seen |= {(bdf, name): text for name, text in _hardware(k, bdf).items()}
        seen |= _belief(k, bdf)
    return seen | _system(k)


def predict_outside(k: Kernel, devices: Sequence[str]) -> Observation:
    """Return what the silicon shows while no kernel can be asked."""
    seen = system_unseen()
    for bdf in devices:
        seen |= unseen(bdf) | {(bdf, name): text for name, text in _hardware(k, bdf).items()}
    return seen


def alarms_of(outcome: Outcome, listener: Listener | None = None, *, instrumented: bool = False) -> Observation:
    """Return what one step adds: its complaints and whether it waits. With the listener of the life, a warning that the
    kernel gives once is expected once, and the marks of the kernel follow.

    ``instrumented`` says that the kernel has the debugging that some complaints need.
    """
    found = model_alarms(outcome, instrumented=instrumented)
    heard = found if listener is None else listener.hear(found)
    anything = not instrumented and any(finding.rule in UNDEFINED for finding in outcome.findings)
    seen = {(SYSTEM, "alarms"): UNSEEN if anything else alarms_text(heard), (SYSTEM, "waits"): flag(outcome.waits)}
    if listener is not None:
        seen[SYSTEM, "taint"] = listener.taint = taint_after(listener.taint, found)
    return seen


# -- devices -----------------------------------------------------------------------------------------------------


def _hardware(k: Kernel, bdf: str) -> dict[str, str]:
    function = k.machine.functions.get(bdf)
    if function is None or not function.reachable:
        return config_fields(b"")
    return config_fields(function.read_config(0, SIZE).to_bytes(SIZE, "little"))


def _belief(k: Kernel, bdf: str) -> Observation:
    dev = BusSlot.get(k.world, f"bus/{bdf}").dev if bdf in k.machine.functions else None
    if k.system.phase in _NO_KERNEL:
        return unseen(bdf)
    if dev is None:
        return not_there(bdf)
    fields = {**_device(k, dev), **_interrupts(k, dev), **_isolation(k, dev)}
    return {(bdf, name): fields[name] for name in DEVICE_FIELDS if name in fields}


def _device(k: Kernel, dev: PciDev) -> dict[str, str]:
    return {
        "present": "1",
        "driver": dev.driver or NONE,
        "driver_override": dev.driver_override or NONE,
        "match_driver": flag(dev.match_driver),
        "enable_cnt": str(dev.enable_cnt),
        "is_busmaster": flag(dev.is_busmaster),
        "error_state": error_state(dev.error_state),
        "current_state": power_state(dev.current_state),
        "state_saved": flag(dev.state_saved),
        "vfs": str(dev.num_vfs),
        "reset_methods": " ".join(pci_reset_methods(k, dev)) or NONE,
        "is_managed": flag(dev.is_managed),
        "devres": ABSENT if dev.driver else "some" if dev.devres else NONE,
    }


def _interrupts(k: Kernel, dev: PciDev) -> dict[str, str]:
    kind = irq_kind(dev.irq, gsi_top(k.machine))
    numbers = [irq for entry in dev.msi_descs if entry.irq > 0 for irq in range(entry.irq, entry.irq + entry.nvec_used)]
    return {
        "irq": kind,
        "line_handlers": str(len(desc(k, dev.irq).actions)) if kind == "line" else ABSENT,
        "msi_enabled": flag(dev.msi_enabled),
        "msix_enabled": flag(dev.msix_enabled),
        "vectors": str(len(numbers)),
        "message_handlers": str(sum(len(desc(k, irq).actions) for irq in numbers)),
    }


def _isolation(k: Kernel, dev: PciDev) -> dict[str, str]:
    group: IommuGroup | None = dev.iommu_group
    return {
        "iommu": _iommu_data(k, dev),
        "dma": "direct" if dma_path(k, dev) == DIRECT else "iommu",
        **(dict.fromkeys(_GROUP_FIELDS, ABSENT) | {"group": NONE} if group is None else _group(k, group)),
    }


_GROUP_FIELDS = ("group", "group_type", "group_domain", "group_held", "group_users", "group_owner")


def _group(k: Kernel, group: IommuGroup) -> dict[str, str]:
    counted = k.has(changes.DMA_OWNERSHIP)
    return {
        "group": " ".join(sorted(member.bdf for member in group.devices)),
        "group_type": UNSEEN if group.default_domain is None else domain_type(group.default_domain.type),
        "group_domain": _domain_kind(group),
        "group_held": flag(group.refs),
        "group_users": str(group.owner_cnt) if counted else UNSEEN,
        "group_owner": flag(group.owner is not None) if counted else UNSEEN,
    }


def _iommu_data(k: Kernel, dev: PciDev) -> str:
    """Before the core probed devices (v5.8), the drivers kept their data elsewhere."""
    return flag(dev.iommu_attached) if k.machine.iommu is None or probes_devices(k) else UNSEEN


def _domain_kind(group: IommuGroup) -> str:
    if group.domain is None:
        return NONE
    if group.domain is group.default_domain:
        return "default"
    return "blocking" if group.domain is group.blocking_domain else "other"


# -- the whole ---------------------------------------------------------------------------------------------------


def _system(k: Kernel) -> Observation:
    if k.system.phase in _NO_KERNEL:
        return system_unseen()
    known = _groups(k)
    fields = {
        "groups": partition([tuple(dev.bdf for dev in group.devices) for group in known if group.devices]),
        "empty_groups": str(sum(not group.devices for group in known)),
    }
    return {(SYSTEM, name): fields.get(name, UNSEEN) for name in SYSTEM_FIELDS}


def _groups(k: Kernel) -> list[IommuGroup]:
    """Return all groups there are, those without devices too; there were never more than one for each device."""
    numbers = range(len(k.machine.functions) + 1)
    candidates = (IommuGroup.get(k.world, f"group/{number}") for number in numbers)
    return [group for group in candidates if group.exists]
