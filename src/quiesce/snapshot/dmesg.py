"""Boot logs: the functions that a kernel found, its bridges, its command line, which IOMMU it drove.

A log tells ids, class and header type, for bridges the bus numbers, since v6.8 the PCIe type, and about capabilities
only what some line happens to prove (``log_facts``). The rest is unknown. What was removed while the log ran is kept
as not present; what was found again counts as it was found last. Groups are kept for comparison only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import BootLog, FunctionDescription
from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.kernel_log import CUT_MARK, log_lines
from quiesce.snapshot.log_facts import Facts, describe, identify, read_message

_ADDRESS = r"[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]"
_ABOUT = re.compile(rf"({_ADDRESS})(?: [\w()-]{{1,32}})?(?:: *|$)")
_ADDED = re.compile(r"(Adding to|Removing from) iommu group ([0-9]{1,7})\b")
_OLD_ADDED = re.compile(rf"iommu: Adding device ({_ADDRESS}) to group ([0-9]{{1,7}})\b")
_OLD_FOUND = re.compile(
    rf"PCI: Found ({_ADDRESS}|[0-9a-f]{{2}}:[0-9a-f]{{2}}) \[([0-9a-f]{{4}})/([0-9a-f]{{4}})\] "
    r"([0-9a-f]{6}) ([0-9a-f]{2})\b"
)
_VERSION = re.compile(r"Linux version ([0-9]\S{0,200})")
_CMDLINE = re.compile(r"(?:^|\W)(?:Kernel c|C)ommand line: *(.*)")
_BUS = re.compile(r"pci_bus ([0-9a-f]{4,8}):([0-9a-f]{2}): busn_res: \[bus ([0-9a-f]{2})(?:-([0-9a-f]{2}))?\] (.*)")
_BUS_END = re.compile(r"end is updated to ([0-9a-f]{2})")
_ROOT = re.compile(r"PCI host bridge to bus ([0-9a-f]{4,8}:[0-9a-f]{2})\b")
_ALIAS = re.compile(r"Enabling fixed DMA alias to ([0-9a-f]{2}:)?([0-9a-f]{2}\.[0-7])")
_FOUND = re.compile(r"(?:found )?\[[0-9a-f]{4}[:/][0-9a-f]{4}\]")
_OWNER = re.compile(r"[A-Za-z][\w-]{0,63}")
_HIDDEN_CLASS = 0x058000
_SHOWN = 8

_HINTS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("intel", re.compile(r"(?:DMAR|PCI-DMA): Intel\(R\) Virtualization Technology for Directed I/O")),
    ("amd", re.compile(r"AMD-Vi: (?:Found IOMMU|Lazy IO|IO/TLB|Initialized for Pass|Extended feat|IOMMU perf)")),
    ("arm", re.compile(r"arm-smmu\S{0,40} \S{1,80}: (?:probing hardware|ias [0-9]|option mask|stream matching)")),
    ("virtio", re.compile(r"virtio_iommu \S{1,80}: (?:input address|page mask)")),
    ("power", re.compile(r"\[PE# *[0-9a-f]+\] (?:Setting up|Enabling)|Configured PE#|: Configuring PE")),
)
_MOST = 16384
"""More functions than any log of a real machine shows; the rest is left out."""


@dataclass
class _Boot:
    """What one start of a kernel said."""

    kernel: str | None = None
    cmdline: str | None = None
    model: str | None = None
    functions: dict[Bdf, Facts] = field(default_factory=dict)
    by_text: dict[str, Facts] = field(default_factory=dict)
    groups: dict[Bdf, int] = field(default_factory=dict)
    on_bus: dict[tuple[int, ...], list[Facts]] = field(default_factory=dict)
    leads_to: dict[tuple[int, int], Facts] = field(default_factory=dict)
    """Segment and bus to the bridge that leads there."""
    roots: set[str] = field(default_factory=set)
    aliases: list[str] = field(default_factory=list)
    again: set[Bdf] = field(default_factory=set)
    lines_cut: int = 0
    too_many: bool = False
    told: bool = False
    """Whether the kernel was seen to find a function."""
    number: int = 1
    last: Bdf | None = None

    def facts(self, text: str) -> Facts:
        """Return what is known of the function at an address, from now on if nothing was."""
        found = self.by_text.get(text)
        if found is None:
            bdf = Bdf.parse(text)
            self.too_many |= len(self.by_text) >= _MOST
            found = self.functions.get(bdf) or Facts(bdf)
            if not self.too_many:
                self.functions[bdf] = found
                self.by_text[text] = found
                self.on_bus.setdefault(bdf[:2], []).append(found)
        return found


def read_dmesg(text: str, file: str, name: str = "") -> BootLog:
    """Read a kernel log, or what a mail or a pager made of one; raises BadInput when no line names a PCI function."""
    boots = [_Boot()]
    for line in log_lines(text):
        _read_line(boots, line)
    boot = ([item for item in boots if item.told] or [item for item in boots if item.functions] or boots)[-1]
    if not boot.functions:
        raise BadInput(
            file, "", "a kernel log with lines such as `pci 0000:00:1f.2: [8086:2922] type 00 class 0x010601`"
        )
    _settle(boot)
    virtual = _virtual(boot.functions.values())
    functions = tuple(_describe(boot, virtual))
    groups, ungrouped = _recorded(boot, functions)
    return BootLog(
        name=name or boot.model or "machine",
        functions=functions,
        source=file,
        notes=tuple(_notes(boot, boots[-1].lines_cut, functions, virtual)),
        recorded_groups=groups,
        recorded_ungrouped=ungrouped,
        kernel=boot.kernel,
        cmdline=boot.cmdline,
        iommu_hint=next((hint for hint, pattern in _HINTS if pattern.search(text)), None),
    )


# -- lines --------------------------------------------------------------------------------------------------------


def _read_line(boots: list[_Boot], line: str) -> None:
    about = _ABOUT.search(line)
    if about is not None:
        _read_about(boots[-1], line, about)
        return
    for mark, reader in _OTHERS:
        if mark in line:
            reader(boots, line)
            return


def _read_about(boot: _Boot, line: str, about: re.Match[str]) -> None:
    """A line of ``dev_printk``: the driver's or the bus's name, the address, a message."""
    start, end = about.span()
    if line[start - 1 : start] != " ":
        return
    owner = line[line.rfind(" ", 0, start - 1) + 1 : start - 1]
    message = line[end:].lstrip()
    address = about[1]
    facts = boot.by_text.get(address)
    if facts is None:
        if not _OWNER.fullmatch(owner) or not _is_said_of_a_device(owner, message):
            return
        facts = boot.facts(address)
    if owner != facts.driver and _OWNER.fullmatch(owner):
        facts.driver = owner
        if owner == "pcieport":
            facts.proves((r.PCI_EXP_TYPE_ROOT_PORT, 0xC))
    if message[:4] in _BOOT_READERS:
        _BOOT_READERS[message[:4]](boot, facts, message)
        return
    if _FOUND.match(message):
        _found(boot, facts)
    read_message(facts, message)
    if facts.buses[0] is not None and message[:4] in ("PCI ", "Card"):
        boot.leads_to[facts.bdf.segment, facts.buses[0]] = facts


def _is_said_of_a_device(owner: str, message: str) -> bool:
    return owner == "pci" or owner == "pcieport" or bool(_ADDED.match(message)) or message.startswith("enabling device")


def _found(boot: _Boot, facts: Facts) -> None:
    """The kernel has found a function, for the first time or again."""
    boot.told = True
    if facts.ids is not None:
        boot.again.add(facts.bdf)
    if boot.last is not None and boot.last.segment == facts.bdf.segment and boot.last.bus > facts.bdf.bus:
        facts.late = True
    boot.last = facts.bdf


def _read_group(boot: _Boot, facts: Facts, message: str) -> None:
    match = _ADDED.match(message)
    if match is not None:
        _group(boot, facts, int(match[2]), match[1] == "Adding to")


def _read_alias(boot: _Boot, facts: Facts, message: str) -> None:
    match = _ALIAS.match(message)
    if match is not None and len(boot.aliases) < _SHOWN:
        boot.aliases.append(f"{facts.bdf} -> {match[1] or ''}{match[2]}")


_BOOT_READERS = {"Addi": _read_group, "Remo": _read_group, "Enab": _read_alias}


def _group(boot: _Boot, facts: Facts, number: int, added: bool) -> None:
    if added:
        boot.groups[facts.bdf] = number
        facts.gone = False
    else:
        boot.groups.pop(facts.bdf, None)
        facts.gone = True


def _read_old_group(boots: list[_Boot], line: str) -> None:
    match = _OLD_ADDED.search(line)
    if match is not None:
        _group(boots[-1], boots[-1].facts(match[1]), int(match[2]), True)


def _read_old_found(boots: list[_Boot], line: str) -> None:
    """Kernels up to 2.6.26 with debugging on; 2.4 prints device and function as one number."""
    match = _OLD_FOUND.search(line)
    if match is not None:
        text = match[1]
        boots[-1].told = True
        address = text if "." in text else str(Bdf.from_devid(int(text.replace(":", ""), 16)))
        identify(boots[-1].facts(address), match[2], match[3], match[5], int(match[4], 16))


def _start(boots: list[_Boot], boot: _Boot) -> None:
    """Another kernel starts; of those before only the last one can still count."""
    boot.number, boot.lines_cut = boots[-1].number + 1, boots[-1].lines_cut
    boots[:] = [boots[-1], boot]


def _read_version(boots: list[_Boot], line: str) -> None:
    match = _VERSION.search(line)
    if match is None:
        return
    if boots[-1].told:
        _start(boots, _Boot())
    boots[-1].kernel = match[1]


def _read_cmdline(boots: list[_Boot], line: str) -> None:
    match = _CMDLINE.search(line)
    if match is not None and (boots[-1].cmdline is None or "Kernel command" in line):
        boots[-1].cmdline = match[1].strip()


def _read_bus(boots: list[_Boot], line: str) -> None:
    match = _BUS.search(line)
    if match is None:
        return
    segment, bus = int(match[1], 16), int(match[2], 16)
    end = _BUS_END.match(match[5])
    if end is not None:
        facts = boots[-1].leads_to.get((segment, bus))
        if facts is not None and facts.buses[0] == bus:
            facts.buses = bus, int(end[1], 16)
    elif match[5].startswith("is released"):
        _release(boots[-1], segment, bus)


def _release(boot: _Boot, segment: int, bus: int) -> None:
    """A bus was removed, and with it all that was on it."""
    for facts in boot.on_bus.pop((segment, bus), ()):
        facts.gone = True
        boot.groups.pop(facts.bdf, None)
        boot.by_text.pop(str(facts.bdf), None)


def _read_root(boots: list[_Boot], line: str) -> None:
    """The same root bus again, after functions were found: the log goes on with another start of a kernel."""
    match = _ROOT.search(line)
    if match is None:
        return
    boot = boots[-1]
    if match[1] in boot.roots and boot.told:
        _start(boots, _Boot(boot.kernel, boot.cmdline, boot.model))
    boots[-1].roots.add(match[1])


def _read_model(boots: list[_Boot], line: str) -> None:
    model, mark, _ = line.partition("DMI: ")[2].partition(", BIOS ")
    if mark and "/" in model:
        boots[-1].model = model.strip()


def _read_cut(boots: list[_Boot], line: str) -> None:
    match = CUT_MARK.search(line)
    if match is not None:
        boots[-1].lines_cut += int(match[1])


_OTHERS: tuple[tuple[str, Callable[[list[_Boot], str], None]], ...] = (
    ("### collector: ", _read_cut),
    ("iommu: Adding device ", _read_old_group),
    ("busn_res: ", _read_bus),
    ("PCI host bridge to bus ", _read_root),
    ("Linux version ", _read_version),
    ("ommand line: ", _read_cmdline),
    ("DMI: ", _read_model),
    ("PCI: Found ", _read_old_found),
)


# -- after the last line ------------------------------------------------------------------------------------------


def _settle(boot: _Boot) -> None:
    _settle_classes(boot.functions.values())
    for facts in boot.functions.values():
        if facts.late and facts.class_code == _HIDDEN_CLASS and facts.ids and facts.ids[0] == 0x8086:
            facts.gone = True
            boot.groups.pop(facts.bdf, None)


def _settle_classes(functions: Iterable[Facts]) -> None:
    """Kernels before v3.4 print base and sub class without the programming interface, as a number of the same width:
    no function of a machine has a base class then.
    """
    coded = [item for item in functions if item.class_code is not None]
    if any((item.class_code or 0) >> 16 for item in coded):
        return
    for item in coded:
        item.class_code, item.class_bits = (item.class_code or 0) << 8, 0xFFFF00


def _describe(boot: _Boot, virtual: set[Bdf]) -> Iterable[FunctionDescription]:
    slots: dict[tuple[int, int, int], int] = {}
    for bdf in boot.functions.keys() - virtual:
        slots[bdf.slot] = slots.get(bdf.slot, 0) + 1
    for bdf in sorted(boot.functions):
        yield describe(boot.functions[bdf], slots.get(bdf.slot, 0) > 1 and bdf not in virtual)


def _virtual(functions: Iterable[Facts]) -> set[Bdf]:
    """Return the functions that came late onto a bus with a function that has virtual ones, of the same vendor, and
    showed no base addresses: those of a virtual function are not in its own header.
    """
    late = [
        item for item in functions if item.late and not item.bars and item.ids and item.kind == r.PCI_HEADER_TYPE_NORMAL
    ]
    physical = {
        (item.bdf[:2], item.ids[0]) for item in functions if r.PCI_EXT_CAP_ID_SRIOV in item.extended and item.ids
    }
    return {item.bdf for item in late if item.ids and (item.bdf[:2], item.ids[0]) in physical}


def _recorded(
    boot: _Boot, functions: tuple[FunctionDescription, ...]
) -> tuple[tuple[tuple[str, ...], ...] | None, tuple[str, ...]]:
    members: dict[int, list[str]] = {}
    for item in functions:
        if item.bdf in boot.groups:
            members.setdefault(boot.groups[item.bdf], []).append(str(item.bdf))
    if not members:
        return None, ()
    ungrouped = tuple(str(item.bdf) for item in functions if item.bdf not in boot.groups and item.present)
    return tuple(sorted(map(tuple, members.values()))), ungrouped


def _notes(boot: _Boot, lines_cut: int, functions: tuple[FunctionDescription, ...], virtual: set[Bdf]) -> Iterable[str]:
    yield "boot log: capabilities are unknown except where a line proves one; what the log leaves out stays unknown"
    if boot.number > 1:
        yield f"the log shows {boot.number} starts of a kernel; the last one that found functions counts"
    if boot.too_many:
        yield f"more than {_MOST} functions; those after the first {_MOST} are left out"
    if lines_cut:
        yield f"{lines_cut} lines were left out of the log when it was collected"
    bare = [item for item in functions if boot.functions[item.bdf].ids is None]
    if bare:
        yield f"{_few(bare)}: the log does not show when they were found; only the address is known"
    gone = [item for item in functions if not item.present]
    if gone:
        yield f"{_few(gone)}: removed, hidden or unreadable at the end of the log; not present"
    again = [item for item in functions if item.bdf in boot.again]
    if again:
        yield f"{_few(again)}: found more than once; the last time counts"
    late = [item for item in functions if item.bdf in virtual]
    if late:
        yield f"{_few(late)}: probably virtual functions; the log does not say of which function"
    if boot.aliases:
        yield f"the kernel uses fixed DMA aliases: {', '.join(boot.aliases)}"


def _few(items: list[FunctionDescription]) -> str:
    shown = ", ".join(str(item.bdf) for item in items[:3])
    return shown if len(items) <= 3 else f"{shown} and {len(items) - 3} more"
