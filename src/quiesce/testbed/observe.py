"""What a real kernel shows: the fields of an observation, read from a guest.

Config space and structures are read from outside, so that looking changes nothing: a read of ``config`` in sysfs wakes
a sleeping device, and a read of ``driver_override`` waits for the device's lock. From inside come only what is in no
structure of a known layout: the vectors' numbers, the types of groups, the handlers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quiesce.testbed import values
from quiesce.testbed.config_bits import SIZE, config_fields
from quiesce.testbed.errors import Skipped
from quiesce.testbed.interrupts import InterruptLine, handlers_on, parse_interrupts
from quiesce.testbed.messages import Listener, alarms, alarms_text, taint_text
from quiesce.testbed.observation import (
    ABSENT,
    NONE,
    SYSTEM,
    UNSEEN,
    Observation,
    flag,
    not_there,
    partition,
    system_unseen,
    unseen,
)
from quiesce.testbed.structures import (
    DeviceSeen,
    GroupSeen,
    Knowledge,
    Seen,
    Structures,
    Torn,
    kallsyms,
    knowledge,
)

if TYPE_CHECKING:
    from quiesce.testbed.guest import Guest
    from quiesce.testbed.images import KernelImage

_ATTEMPTS = 3
_INSIDE_SECONDS = 10
_ASK = """cd /sys/bus/pci/devices; echo */msi_irqs/*; grep '' */reset_method 2>/dev/null; cat /proc/interrupts"""


@dataclass(frozen=True, slots=True)
class Inside:
    """What the guest itself tells."""

    vectors: Mapping[str, tuple[int, ...]]
    """Numbers of the message interrupts of the devices that have any."""
    reset_methods: Mapping[str, str]
    lines: Mapping[int, InterruptLine]


def observe(
    guest: Guest,
    image: KernelImage,
    devices: Sequence[str],
    log: Iterable[str] = (),
    *,
    listener: Listener | None = None,
    waits: bool | None = None,
    awake: bool = True,
) -> Observation:
    """Return what a running kernel shows of these devices and of the whole.

    ``log`` are the kernel's messages since the last step, ``waits`` whether the step's operation does not end; with
    ``awake`` off nothing is asked of the guest itself. What cannot be read is UNSEEN.
    """
    inside = read_inside(guest) if awake else None
    seen = _believed(devices, read_structures(guest, image), inside) | _hardware(guest, devices)
    found = alarms(log)
    seen[SYSTEM, "alarms"] = alarms_text(found if listener is None else listener.hear(found))
    seen[SYSTEM, "waits"] = UNSEEN if waits is None else flag(waits)
    return seen


def observe_outside(guest: Guest, devices: Sequence[str], configs: Mapping[str, bytes] | None = None) -> Observation:
    """Return what the silicon shows while no kernel can be asked; of ``configs`` that were read before, if given."""
    seen = system_unseen()
    for bdf in devices:
        seen |= unseen(bdf)
        if configs is None:
            seen |= _hardware(guest, [bdf])
        elif bdf in configs:
            seen |= _bits(bdf, configs[bdf])
    return seen


# -- the silicon -------------------------------------------------------------------------------------------------


def _hardware(guest: Guest, devices: Iterable[str]) -> Observation:
    seen: Observation = {}
    for bdf in devices:
        seen |= _bits(bdf, guest.config(bdf, SIZE))
    return seen


def _bits(bdf: str, config: bytes) -> Observation:
    return {(bdf, name): text for name, text in config_fields(config).items()}


# -- inside ------------------------------------------------------------------------------------------------------


def read_inside(guest: Guest) -> Inside:
    """Ask the guest for what only it knows; one question, because each costs a process in the guest."""
    _, text = guest.shell(_ASK, _INSIDE_SECONDS)
    first, _, rest = text.partition("\n")
    methods, head, interrupts = rest.partition(" " * 11)
    lines = parse_interrupts(head + interrupts)
    return Inside(_vectors(first), dict(_reset_methods(methods)), lines)


def _vectors(paths: str) -> dict[str, tuple[int, ...]]:
    """Read ``0000:00:04.0/msi_irqs/25 ...``; with no vector at all, the pattern itself is there."""
    found: dict[str, tuple[int, ...]] = {}
    for path in paths.split():
        bdf, _, number = path.partition("/msi_irqs/")
        if number.isdigit():
            found[bdf] = (*found.get(bdf, ()), int(number))
    return found


def _reset_methods(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        bdf, found, methods = line.partition("/reset_method:")
        if found:
            yield bdf, methods.strip() or NONE


# -- structures --------------------------------------------------------------------------------------------------


def read_structures(guest: Guest, image: KernelImage) -> Seen | None:
    """Read the devices out of the guest's memory while it stands still; None where this kernel cannot be read so."""
    known = _knowledge_of(guest, image)
    if known is None:
        return None
    reader = Structures(guest.virtual, known)
    for _ in range(_ATTEMPTS):
        try:
            with _standing_still(guest):
                return reader.look()
        except Torn:
            continue
    return None


_KNOWLEDGE: dict[Path, Knowledge | None] = {}
"""What is constant of each image this process has seen; None for one whose structures cannot be read."""


def _knowledge_of(guest: Guest, image: KernelImage) -> Knowledge | None:
    if image.vmlinux not in _KNOWLEDGE:
        from quiesce.testbed.store import cache_dir

        try:
            found = knowledge(image.vmlinux, kallsyms(guest), cache_dir() / "layouts")
            Structures(guest.virtual, found)
        except Skipped:
            found = None
        _KNOWLEDGE[image.vmlinux] = found
    return _KNOWLEDGE[image.vmlinux]


@contextmanager
def _standing_still(guest: Guest) -> Iterator[None]:
    """Let no CPU run while lists are walked."""
    guest.qmp("stop")
    try:
        yield
    finally:
        guest.qmp("cont")


# -- put together ------------------------------------------------------------------------------------------------


def _believed(devices: Sequence[str], found: Seen | None, inside: Inside | None) -> Observation:
    seen = system_unseen()
    if found is None:
        return seen | {key: text for bdf in devices for key, text in unseen(bdf).items()}
    members = _members(found.devices)
    seen[SYSTEM, "groups"] = partition(list(members.values()))
    seen[SYSTEM, "empty_groups"] = UNSEEN if found.groups is None else str(found.groups - len(members))
    seen[SYSTEM, "taint"] = UNSEEN if found.taint is None else taint_text(found.taint)
    for bdf in devices:
        fields = _device(found.devices[bdf], members, inside) if bdf in found.devices else None
        seen |= not_there(bdf) if fields is None else {(bdf, name): text for name, text in fields.items()}
    return seen


def _members(found: Mapping[str, DeviceSeen]) -> dict[int, tuple[str, ...]]:
    members: dict[int, tuple[str, ...]] = {}
    for bdf, device in sorted(found.items()):
        if device.group is not None:
            members[device.group.number] = (*members.get(device.group.number, ()), bdf)
    return members


def _device(device: DeviceSeen, members: Mapping[int, tuple[str, ...]], inside: Inside | None) -> dict[str, str]:
    number = device.values
    return {
        "present": "1",
        "driver": values.driver_name(device.driver),
        "driver_override": UNSEEN if device.override is None else values.driver_name(device.override),
        "match_driver": _flag(number["match_driver"]),
        "enable_cnt": _count(number["enable_cnt.counter"]),
        "is_busmaster": _flag(number["is_busmaster"]),
        "error_state": values.error_state(number["error_state"] or 0),
        "current_state": values.power_state(_or(number["current_state"], -1)),
        "state_saved": _flag(number["state_saved"]),
        "vfs": str(device.vfs),
        "is_managed": _flag(number["is_managed"]),
        "devres": ABSENT if device.driver else "some" if device.devres else NONE,
        "iommu": UNSEEN if number["dev.iommu"] is None else flag(number["dev.iommu"]),
        "dma": _dma(number),
        **_interrupts(device, inside),
        **_group(device.group, members),
    }


def _or(value: int | None, other: int) -> int:
    return other if value is None else value


def _flag(value: int | None) -> str:
    return UNSEEN if value is None else flag(value)


def _count(value: int | None) -> str:
    """A counter of 32 bits, which may have gone below 0."""
    if value is None:
        return UNSEEN
    return str(value - (1 << 32) if value >> 31 else value)


def _dma(number: Mapping[str, int | None]) -> str:
    """The flag where there is one (v6.12+); before, a device with operations of its own goes through the IOMMU."""
    for mark in (number["dev.dma_iommu"], number["dev.flags#DEV_FLAG_DMA_IOMMU"]):
        if mark is not None:
            return "iommu" if mark else "direct"
    return UNSEEN if number["dev.dma_ops"] is None else "iommu" if number["dev.dma_ops"] else "direct"


def _interrupts(device: DeviceSeen, inside: Inside | None) -> dict[str, str]:
    irq = device.values["irq"]
    kind = UNSEEN if irq is None else values.irq_kind(irq)
    return {
        "irq": kind,
        "msi_enabled": _flag(device.values["msi_enabled"]),
        "msix_enabled": _flag(device.values["msix_enabled"]),
        **_from_inside(device, irq if kind == "line" else None, inside),
    }


def _from_inside(device: DeviceSeen, line: int | None, inside: Inside | None) -> dict[str, str]:
    if inside is None:
        return dict.fromkeys(("line_handlers", "vectors", "message_handlers", "reset_methods"), UNSEEN)
    vectors = inside.vectors.get(device.bdf, ())
    return {
        "line_handlers": ABSENT if line is None else str(handlers_on(inside.lines, line)),
        "vectors": str(len(vectors)),
        "message_handlers": str(sum(handlers_on(inside.lines, irq) for irq in vectors)),
        "reset_methods": inside.reset_methods.get(device.bdf, UNSEEN),
    }


def _group(group: GroupSeen | None, members: Mapping[int, tuple[str, ...]]) -> dict[str, str]:
    if group is None:
        names = ("group_type", "group_domain", "group_held", "group_users", "group_owner")
        return {"group": NONE, **dict.fromkeys(names, ABSENT)}
    return {
        "group": " ".join(members[group.number]),
        "group_type": group.type,
        "group_domain": group.domain,
        "group_held": UNSEEN if group.references is None else flag(group.references > len(members[group.number])),
        "group_users": _count(group.users),
        "group_owner": UNSEEN if group.owner is None else flag(group.owner),
    }
