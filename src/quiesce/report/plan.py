"""A hand-over plan in text and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict

from quiesce.plan.model import NO, REFUSED, Alternative, Interrupts, Member, Plan, Power, Resets, Search, Step
from quiesce.snapshot.bdf import Bdf

FORMAT = 1
"""Version of the JSON layout; it grows when a field changes its meaning or goes."""

_NUMBERS = {"irq": "IRQ", "line": "line register", "": ""}


def plan(item: Plan, form: str) -> str:
    """Return a plan as text or JSON."""
    return json.dumps(as_json(item), indent=1) if form == "json" else "\n".join(_lines(item))


def as_json(item: Plan) -> dict[str, object]:
    """Return a plan as plain data; the keys are stable."""
    record: dict[str, object] = {"format": FORMAT, **asdict(item)}
    record["alternatives"] = [{"verdict": one.verdict, **asdict(one)} for one in item.alternatives]
    return record


def verdict_line(item: Plan) -> str:
    """Return the line that scripts look for."""
    text = f"plan {Bdf.parse(item.device).short} -> {item.to}: {item.verdict}"
    reasons = [*item.refusals, *(reason for one in item.alternatives for reason in one.refusals)]
    return f"{text}: {reasons[0].text}" if item.verdict == REFUSED and reasons else text


def _lines(item: Plan) -> Iterator[str]:
    yield f"# {item.device}  {item.what}".rstrip() + f"  {item.kernel}  IOMMU {item.iommu or 'none'}"
    for reason in item.refusals:
        yield f"refused    {reason.code}: {reason.text}"
    if len(item.alternatives) > 1:
        yield f"group      open: the source does not tell {item.missing}; a plan for each possibility follows"
    for number, one in enumerate(item.alternatives, start=1):
        if len(item.alternatives) > 1:
            yield f"group {number}    {one.verdict}" + (f", if {'; '.join(one.assumes)}" if one.assumes else "")
        yield from _alternative(one)
    if item.interrupts is not None and item.resets is not None and item.power is not None:
        yield from _interrupts(item.interrupts)
        yield from _resets(item.resets)
        yield from _power(item.power)
    yield from _prefixed("check", item.checks)
    for number, one in enumerate(item.alternatives, start=1):
        yield from _commands(f"steps {number}" if len(item.alternatives) > 1 else "steps", one.steps)
    yield from _commands("to keep it", item.persist)
    yield from _commands("guest", item.guest)
    for number, one in enumerate(item.alternatives, start=1):
        yield from _commands(f"back {number}" if len(item.alternatives) > 1 else "back", one.back)
    yield from _prefixed("on the way back", item.back_warnings)
    if item.verdict != REFUSED:
        yield from _search(item.search)
    yield from _prefixed("note", item.notes)
    yield verdict_line(item)


def _prefixed(word: str, texts: Iterable[str]) -> Iterator[str]:
    return (f"{word:<10} {text}" for text in texts)


def _alternative(one: Alternative) -> Iterator[str]:
    for item in one.members:
        yield f"member     {Bdf.parse(item.bdf).short}  {item.what}  {_holder(item)}"
        yield f"           {item.action}: {item.why}"
    for reason in one.refusals:
        yield f"refused    {reason.code}: {reason.text}"
    for reason in one.conditions:
        where = f"  [{' '.join(Bdf.parse(bdf).short for bdf in reason.functions)}]" if reason.functions else ""
        yield f"condition  {reason.code}: {reason.text}{where}"


def _holder(item: Member) -> str:
    if item.driver is None:
        return "held by ?"
    if not item.driver:
        return "no driver"
    return f"held by {item.driver}" + (", which does not block" if item.blocks == NO else "")


def _interrupts(irq: Interrupts) -> Iterator[str]:
    if irq.pin == 0:
        yield "INTx       none"
    elif irq.pin is None:
        yield "INTx       not known"
    else:
        place = f", reaches the host as {irq.root}" if irq.root else ""
        place += f", IO-APIC input {irq.input}" if irq.input is not None else ""
        place += f", {_NUMBERS[irq.number_is]} {irq.number}" if irq.number else ""
        yield f"INTx       pin {' ABCD'[irq.pin]}{place}"
        yield f"           shares the wire with {_short(irq.shared_wire)}"
        if irq.shared_number:
            yield f"           the same {_NUMBERS[irq.number_is]}: {_short(irq.shared_number)}"
        yield f"           can be masked at the device: {irq.disable} ({irq.disable_why})"
        if irq.hidden:
            yield f"           not offered to guests: {irq.hidden}"
    counts = [_vectors(name, count) for name, count in (("MSI", irq.msi), ("MSI-X", irq.msix))]
    yield f"messages   {', '.join(counts)}; remapped: {irq.remapping} ({irq.remapping_why})"


def _vectors(name: str, count: int | None) -> str:
    if count is None:
        return f"{name} not known"
    return f"{name} {count} {'vector' if count == 1 else 'vectors'}" if count else f"no {name}"


def _short(bdfs: Iterable[str]) -> str:
    found = [Bdf.parse(bdf).short for bdf in bdfs]
    return " ".join(found[:12]) + (f" and {len(found) - 12} more" if len(found) > 12 else "") or "nobody"


def _resets(reset: Resets) -> Iterator[str]:
    yield f"reset      works: {reset.works}" + (f", by {reset.first}" if reset.first else "")
    for method in reset.methods:
        yield f"           {method.name:<15} {method.there:<7}  {method.why}"
    if reset.running:
        yield f"           the running kernel says: {reset.running}"
    if reset.bus_mates:
        mates = f"takes {_short(reset.bus_mates)} with it"
        yield f"           of the whole bus, for a user that holds all on it: {reset.hot_reset}; {mates}"


def _power(power: Power) -> Iterator[str]:
    parts = [f"in {power.state}" if power.state else "state not known"]
    if power.d3hot == "yes":
        keeps = {"yes": "keeps its registers", "no": "loses its registers", "unknown": "registers: not known"}
        parts.append(
            f"sleeps in D3hot while idle, {keeps[power.keeps_state]} there (vfio-pci.disable_idle_d3=1: stays awake)"
        )
    if power.port:
        word = {"yes": "is allowed", "no": "is forbidden", "unknown": "may be allowed"}[power.d3cold]
        parts.append(f"D3cold {word}, up to {Bdf.parse(power.port).short} and firmware")
    yield f"power      {'; '.join(parts)}"


def _commands(title: str, steps: Iterable[Step]) -> Iterator[str]:
    found = list(steps)
    if found:
        yield f"{title}:"
    for step in found:
        yield f"  {step.command}" + ("" if step.command.startswith("#") else f"  # {step.what}")


def _search(search: Search) -> Iterator[str]:
    if not search.ran:
        yield f"known      not searched: {search.reason}"
        return
    yield (
        f"known      lives of {_short(search.devices)} with {' '.join(search.drivers)}: {search.states} states, "
        f"ended by {search.bound}" + ("" if search.troubles else "; no rule broken")
    )
    yield from (f"           {text}" for text in (*([search.reason] if search.reason else []), *search.notes))
    for trouble in search.troubles:
        yield f"trouble    {trouble.rule}: {trouble.why}"
        if search.before:
            yield f"           before: {', '.join(search.before)}"
        yield from (f"           {number}  {event}" for number, event in enumerate(trouble.life, start=1))
        yield from (f"           fixed by {change}" for change in trouble.fixed_by or ("no change that is known",))
        if trouble.case:
            yield f"           see 'quiesce run {trouble.case}'"
