"""Groups of a real kernel beside those that the model predicts for the same machine, as described and as booted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from quiesce.cases.case import parse_kernel
from quiesce.kernel import boot, iommu, iov
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.pci_access import pci_dev_of
from quiesce.machine.build import build_machine
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import MachineDescription
from quiesce.testbed.errors import Skipped
from quiesce.testbed.read_back import Shell, check, read_back
from quiesce.testbed.shape import shape_of
from quiesce.testbed.topology import QemuMachine
from quiesce.world import World

Partition = frozenset[frozenset[str]]

_ENABLE_VFS = "/sys/bus/pci/devices/{bdf}/sriov_numvfs"
MODULES = ("nvme", "igb")
"""Drivers without which nobody can enable virtual functions."""
VFS = 2


@dataclass(frozen=True)
class GroupsCheck:
    """What came out for one machine on one kernel."""

    name: str
    kernel: str
    iommu: str | None
    as_described: tuple[str, ...]
    """Differences between the real groups and those predicted from the description."""
    as_booted: tuple[str, ...]
    """The same for the description that was read back from the guest."""
    built_otherwise: tuple[str, ...]
    """In what the guest is not as described."""
    groups: int
    functions: int

    @property
    def agrees(self) -> bool:
        """Whether both predictions are what the kernel did."""
        return not self.as_described and not self.as_booted

    def line(self) -> str:
        """One line for a table."""
        verdict = "same" if self.agrees else "DIFFERS"
        said = "; ".join((*self.as_described, *(f"as booted: {item}" for item in self.as_booted)))
        where = f"{self.name} {self.kernel} {self.iommu or 'none'}"
        return f"{where} {verdict} {self.functions} functions {self.groups} groups {said}".rstrip()


def with_iommu(description: MachineDescription, kind: str | None) -> MachineDescription:
    """Return the description with the tables of one kind of IOMMU only; raises Skipped where it has none of them."""
    if kind == "intel" and description.dmar is not None:
        return replace(description, ivrs=None)
    if kind == "amd" and description.ivrs is not None:
        return replace(description, dmar=None)
    if kind is None:
        return replace(description, ivrs=None, dmar=None)
    raise Skipped(f"{description.name} describes no {kind} IOMMU, so there is nothing to predict from")


def predicted(description: MachineDescription, kernel_set: str, kind: str | None, vfs: int = VFS) -> Partition:
    """Return the groups that the model forms: at boot, and when virtual functions were enabled where there can be
    some.
    """
    world = World()
    described = with_iommu(description, kind)
    k = Kernel(world, build_machine(world, described, kind), parse_kernel(kernel_set, "kernel"))
    boot.boot(k)
    for fn in tuple(k.machine.functions.values()):
        dev = pci_dev_of(k, str(fn.bdf))
        if fn.virtfns and dev is not None and vfs:
            iov.pci_enable_sriov(k, dev, min(vfs, len(fn.virtfns)))
    return partition(iommu.groups(k))


def partition(groups: Iterable[Iterable[object]]) -> Partition:
    """Return groups as a set of sets."""
    return frozenset(frozenset(str(member) for member in group) for group in groups)


def in_guest(groups: Partition, machine: QemuMachine) -> Partition:
    """Return groups with the addresses that the guest has for their members."""
    return frozenset(frozenset(_guest_address(bdf, machine) for bdf in group) for group in groups)


def _guest_address(address: str, machine: QemuMachine) -> str:
    """What was not described (a virtual function) moves with its bus."""
    if address in machine.at:
        return machine.at[address]
    bdf = Bdf.parse(address)
    pairs = ((Bdf.parse(here), Bdf.parse(there)) for here, there in machine.at.items())
    return str(bdf._replace(bus=next((there.bus for here, there in pairs if here.bus == bdf.bus), bdf.bus)))


def compare(expected: Partition, real: Partition, described: Iterable[str] | None = None) -> tuple[str, ...]:
    """Say which groups are on one side only. With ``described``, other functions are left out on both sides."""
    if described is not None:
        known = frozenset(described)
        expected, real = (_only(groups, known) for groups in (expected, real))
    missing = [f"predicted {_text(group)}" for group in sorted(expected - real, key=sorted)]
    more = [f"real {_text(group)}" for group in sorted(real - expected, key=sorted)]
    return (*missing, *more)


def _only(groups: Partition, known: frozenset[str]) -> Partition:
    return frozenset(group & known for group in groups if group & known)


def _text(group: frozenset[str]) -> str:
    return "{" + " ".join(bdf.removeprefix("0000:") for bdf in sorted(group)) + "}"


def enable_virtual_functions(guest: Shell, found: MachineDescription, vfs: int = VFS) -> bool:
    """Enable virtual functions in the guest; returns whether there are any."""
    able = [item.bdf for item in found.functions if shape_of(item).sriov]
    for bdf in able:
        # Guests start with nothing bound; without a driver nobody can enable them.
        script = f"echo {bdf} > /sys/bus/pci/drivers_probe; echo {vfs} > {_ENABLE_VFS.format(bdf=bdf)}"
        status, text = guest.shell(script)
        if status:
            raise Skipped(f"{bdf} would not enable {vfs} virtual functions: {text.strip()[-200:]}")
    return bool(able)


def check_guest(
    guest: Shell, description: MachineDescription, machine: QemuMachine, kernel: str, kernel_set: str
) -> GroupsCheck:
    """Compare the groups of a booted guest with both predictions."""
    found = read_back(guest, machine)
    if enable_virtual_functions(guest, found):
        found = read_back(guest, machine)
    real = partition(found.recorded_groups or ())
    booted = predicted(found, kernel_set, machine.iommu)
    described = in_guest(predicted(description, kernel_set, machine.iommu), machine)
    known = {str(item.bdf) for item in found.functions} & {member for group in described for member in group}
    known |= {there for here, there in machine.at.items()}
    return GroupsCheck(
        description.name,
        kernel,
        machine.iommu,
        as_described=compare(described, real, known),
        as_booted=compare(booted, real),
        built_otherwise=(*machine.differences, *check(description, machine, found)),
        groups=len(real),
        functions=len(found.functions),
    )


def check_groups(description: MachineDescription, image: Any, machine: QemuMachine) -> GroupsCheck:
    """Boot a machine on a kernel image and compare; raises Skipped, GuestDied or GuestHung."""
    from quiesce.testbed.guest import Guest  # type: ignore[import-not-found,unused-ignore]

    needed = MODULES if any(device.driver in MODULES for device in machine.by_bdf.values()) else ()
    with Guest(image, machine, needed) as guest:
        return check_guest(guest, description, machine, image.name, image.kernel_set)


def summary(checks: Iterable[GroupsCheck]) -> Mapping[tuple[str, str], tuple[int, int]]:
    """Return (kernel, IOMMU) -> (machines that agree, machines tried)."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for item in checks:
        key = item.kernel, item.iommu or "none"
        good, all_of_them = found.get(key, (0, 0))
        found[key] = good + item.agrees, all_of_them + 1
    return found
