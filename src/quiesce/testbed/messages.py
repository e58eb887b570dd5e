"""Classes of kernel complaints, the same for what the model prints and for what a real kernel logs.

A class is one word that stands for one kind of complaint in any wording of any version. What a kernel says in its
ordinary course has none. A stack trace with everything around it is one complaint.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from quiesce.explore.model import Outcome
from quiesce.kernel.kernel import Message
from quiesce.testbed.message_classes import CLASSES, DEBUG_ONLY, SAID_ONCE, area_of
from quiesce.testbed.observation import NONE

OOPS, BUG, PANIC = "oops", "bug", "panic"


class Alarm(NamedTuple):
    """One complaint."""

    kind: str
    """Its class; what is compared."""
    where: str = ""
    """The function, where the message names one."""
    text: str = ""
    """The line."""


_OOPS = re.compile(
    r"kernel NULL pointer dereference|unable to handle (kernel )?(page fault|paging request)|general protection fault|"
    r"\bOops: |divide error: |stack segment: |KASAN: |BUG: unable to handle"
)
_BUG = re.compile(r"kernel BUG at (?P<file>[\w./-]+)")
_WARNING = re.compile(
    r"WARNING:(?: CPU: \d+ PID: \d+)?(?: at)? (?P<file>[\w.-]+(?:/[\w.-]+)*\.[ch])\b(?::\d+)?"
    r"(?:[: ]+(?:at )?(?P<function>\w+))?"
)
_RIP = re.compile(r"RIP: [0-9a-f]{4}:(?P<function>[\w.]+)\+0x")
_CUT = "------------[ cut here ]------------"
_TRACE_END = re.compile(r"---\[ end (trace|Kernel panic)")
_TIMESTAMP = re.compile(r"^(?:<\d+>)?(?:\[\s*\d+\.\d+\](?:\[[^\]]*\])? ?)?")


def classify(line: str) -> str | None:
    """Return the class of one line; None for what a kernel says in its ordinary course."""
    alarm = _single(line)
    return None if alarm is None else alarm.kind


def _single(line: str) -> Alarm | None:
    text = _TIMESTAMP.sub("", line, count=1)
    for kind, pattern in CLASSES:
        if pattern.search(text):
            return Alarm(kind, "", text)
    if (match := _BUG.search(text)) is not None:
        return Alarm(BUG, match["file"], text)
    if _OOPS.search(text):
        return Alarm(OOPS, "", text)
    if (match := _WARNING.search(text)) is not None:
        return Alarm(f"warn:{area_of(match['file'])}", match["function"] or "", text)
    return None


# -- a real kernel's log -----------------------------------------------------------------------------------------


def alarms(lines: Iterable[str]) -> list[Alarm]:
    """Return the complaints in a part of a kernel's log, in their order; a stack trace is one with its head."""
    found: list[Alarm] = []
    for block in _blocks(lines):
        found += _block_alarms(block) if len(block) > 1 else _of_line(block[0])
    return found


def _of_line(line: str) -> list[Alarm]:
    alarm = _single(line)
    return [] if alarm is None else [alarm]


def _blocks(lines: Iterable[str]) -> Iterator[list[str]]:
    """Yield lines alone, and what lies between the head of a stack trace and its end together."""
    block: list[str] = []
    for raw in lines:
        line = _TIMESTAMP.sub("", raw, count=1)
        if block and not (_begins(line) and _complete(block)):
            block.append(line)
            if _TRACE_END.search(line):
                yield block
                block = []
            continue
        if block:
            yield block
            block = []
        if _begins(line):
            block = [line]
        else:
            yield [line]
    if block:
        yield block


def _begins(line: str) -> bool:
    return _CUT in line or _OOPS.search(line) is not None


def _complete(block: list[str]) -> bool:
    """Whether a trace came, so that the next head begins another block (a trace's end may have been lost)."""
    return any("Call Trace" in line for line in block)


def _block_alarms(block: list[str]) -> list[Alarm]:
    """The head decides: a message of a known class, a BUG or oops, or the place of the warning."""
    singles = [alarm for line in block if (alarm := _single(line)) is not None]
    if not singles:
        return []
    where = next((match["function"] for line in block if (match := _RIP.search(line))), "")
    best = next((alarm for kind in (BUG, OOPS) for alarm in singles if alarm.kind == kind), None)
    chosen = best or next((alarm for alarm in singles if not alarm.kind.startswith("warn:")), singles[0])
    head = Alarm(chosen.kind, where or chosen.where, chosen.text)
    return [head, *(alarm for alarm in singles if alarm.kind == PANIC and chosen.kind != PANIC)]


# -- the model's -------------------------------------------------------------------------------------------------


def model_alarms(outcome: Outcome, *, instrumented: bool = False) -> list[Alarm]:
    """Return the complaints of one step of the model; those that need a debugging kernel only with ``instrumented``."""
    found = [alarm for item in outcome.outputs if isinstance(item, Message) for alarm in _of_message(item)]
    if outcome.crashed and not any(alarm.kind in (OOPS, BUG, "soft-lockup", "hung-task") for alarm in found):
        last = outcome.findings[-1]
        found.append(Alarm(OOPS, last.function, last.why))
    return [alarm for alarm in found if instrumented or alarm.kind not in DEBUG_ONLY]


def _of_message(message: Message) -> list[Alarm]:
    if message.level in ("window", "note"):
        return []
    alarm = _single(message.text)
    if alarm is None and message.level in ("WARN", "BUG"):
        alarm = Alarm("warn:other" if message.level == "WARN" else OOPS, "", message.text)
    return [] if alarm is None else [alarm]


def alarms_in(lines: Iterable[str]) -> str:
    """Return the classes of the complaints in a part of a kernel's log, as the text of an observation."""
    return alarms_text(alarms(lines))


# -- texts of an observation -------------------------------------------------------------------------------------


def alarms_text(found: Iterable[Alarm]) -> str:
    """Return the classes, each once, sorted."""
    return " ".join(sorted({alarm.kind for alarm in found})) or NONE


@dataclass
class Listener:
    """What one kernel has complained of since it started: many warnings are given once only."""

    heard: set[str] = field(default_factory=set)
    taint: str = NONE

    def hear(self, found: Iterable[Alarm]) -> list[Alarm]:
        """Return what is heard of the complaints: a warning that comes once per boot is passed on the first time."""
        fresh = [alarm for alarm in found if not (_said_once(alarm.kind) and alarm.kind in self.heard)]
        self.heard |= {alarm.kind for alarm in fresh}
        return fresh


def _said_once(kind: str) -> bool:
    return kind.startswith("warn:") or kind in SAID_ONCE


_TAINTS = {OOPS: "D", BUG: "D", "soft-lockup": "L"}
_WARNED = frozenset(
    {
        "free-irq-twice",
        "free-irq-in-interrupt",
        "free-irq-unmanaged",
        "unbalanced-irq",
        "irq-freed-with-handler",
        "refcount",
        "disabled-twice",
        "no-release",
        "sleeping-in-atomic",
        "vfio-live-group",
        "dma-api",
    }
)
"""Complaints that come with a stack trace of WARN."""


def taint_after(before: str, found: Iterable[Alarm]) -> str:
    """Return the marks that a kernel carries after these complaints."""
    marks = set(before) if before != NONE else set()
    for alarm in found:
        if alarm.kind.startswith("warn:") or alarm.kind in _WARNED:
            marks.add("W")
        elif alarm.kind in _TAINTS:
            marks.add(_TAINTS[alarm.kind])
    return "".join(sorted(marks)) or NONE


def taint_text(mask: int) -> str:
    """Return the marks in the kernel's mask that tell of complaints."""
    bits = {7: "D", 9: "W", 14: "L"}
    return "".join(sorted(mark for bit, mark in bits.items() if mask >> bit & 1)) or NONE
