"""How each function of a machine is isolated from its peers under a kernel, whatever group it ends in."""

from __future__ import annotations

from dataclasses import dataclass

from quiesce.groups.kernel import LightKernel
from quiesce.groups.machine import LightFunction, LightMachine
from quiesce.groups.units import in_scan_order
from quiesce.kernel import changes
from quiesce.kernel.kernelset import KernelSet
from quiesce.kernel.parameters import Parameters
from quiesce.kernel.pci_acs import AcsAnswer, acs_answer
from quiesce.machine import pci_regs as r
from quiesce.machine.requester import taken_over_by
from quiesce.snapshot.bdf import Bdf


@dataclass(frozen=True, slots=True)
class Isolation:
    """What is known of one function's isolation once the kernel has enabled what it enables."""

    types: tuple[int | None, ...]
    """PCI_EXP_TYPE_*, None for conventional PCI; several when the snapshot leaves it open."""
    answers: tuple[tuple[AcsAnswer, bool], ...]
    """Every answer that is possible to "is it isolated?", and whether it has an ACS capability then."""
    aliases: tuple[Bdf, ...] = ()
    """Requester ids that it sends under besides its own: by a quirk, or because the IVRS table says so."""
    takes_over: Bdf | None = None
    """The requester id that a bridge puts in the place of the ids of what is below it."""


def isolation_of(m: LightMachine, kernel: KernelSet, parameters: Parameters | None = None) -> dict[str, Isolation]:
    """Return the isolation of every function by address."""
    k = LightKernel(m, kernel, parameters or Parameters())
    ordered = in_scan_order(m.functions.values())
    for fn in ordered:
        fn.written = {}
    k.enumerate(ordered)
    if k.has(changes.ACS_IN_DMA_CONFIGURE):
        for fn in ordered:
            k.enable(fn)
    return {path: _isolation(k, fn) for path, fn in m.functions.items()}


def _isolation(k: LightKernel, fn: LightFunction) -> Isolation:
    answers: dict[tuple[AcsAnswer, bool], None] = {}
    types: dict[int | None, None] = {}
    chosen = fn.chosen
    for silicon in fn.options:
        if fn.open:
            fn.chosen, fn.written = silicon, {}
            k.devices[fn.bdf].acs_enabled_quirk = False
            k.enable_now(fn)
        types[fn.pcie_type] = None
        answers[acs_answer(k, k.devices[fn.bdf]), bool(fn.find_ext_capability(r.PCI_EXT_CAP_ID_ACS))] = None
    fn.chosen = chosen
    above = taken_over_by(fn) if fn.is_bridge and len(types) == 1 and _bus_known(fn) else None  # type: ignore[arg-type]
    return Isolation(tuple(types), tuple(answers), tuple(_aliases(k, fn)), above)


def _bus_known(fn: LightFunction) -> bool:
    return fn.knows.known(r.PCI_SECONDARY_BUS, 1)


def _aliases(k: LightKernel, fn: LightFunction) -> list[Bdf]:
    found = [Bdf.from_devid(fn.bdf.bus << 8 | devfn, fn.bdf.segment) for devfn in k.devices[fn.bdf].dma_alias_mask]
    m = k.machine
    if m.iommu == "amd" and m.ivrs is not None:
        alias = m.ivrs.alias_of(fn.bdf.requester_id, fn.bdf.segment)
        found += [Bdf.from_devid(alias, fn.bdf.segment)] if alias != fn.bdf.requester_id else []
    return sorted(set(found))
