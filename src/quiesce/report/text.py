"""Reports for people: aligned, greppable plain text. A printed trace is a case file that reproduces it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from quiesce.cases.case import Case, print_case
from quiesce.cases.scenario import answer_of
from quiesce.cases.verdict import HOLDS, VIOLATED, Verdict
from quiesce.explore.replay import Played
from quiesce.explore.search import Result, Violation
from quiesce.kernel.kernel import Finding, Message
from quiesce.world import Change, State

_HARDWARE = ("hw/", "ioapic", "lapic", "irte/", "amd/dte", "vtd/context", "vtd/root", "pt/", "iotlb", "unit/")
_BOOKKEEPING = ("system.windows_left", "system.faults_left")
_ROUTINE = frozenset(
    (
        *("refs", "drvdata", "exists", "saved_config", "dma_target", "regions", "current_state", "devres", "driver"),
        *("pci_driver", "is_prepared", "state_saved", "msi_data", "msix_table", "msi_descs"),
    )
)
"""Fields that every life changes and that seldom explain it; ``quiesce show`` has them."""


def count_line(result: Result) -> str:
    """Return states, transitions, time and what ended the search."""
    return (
        f"{result.states} states, {result.transitions} transitions, {result.seconds:.2f} s, "
        f"ended by: {result.bound} (longest life {result.depth} events)"
    )


def verdict_line(verdict: Verdict) -> str:
    """Return the head line of a run."""
    word = verdict.verdict.upper() if verdict.verdict == VIOLATED else verdict.verdict
    parts = [verdict.case.name, verdict.kernel, word]
    if verdict.first is not None:
        parts += [verdict.first.finding.rule, f"{len(verdict.first.steps)} events (shortest)"]
    return "  ".join([*parts, count_line(verdict.result)])


def trace_case(verdict: Verdict, violation: Violation) -> Case:
    """Return the case that reproduces a violation exactly."""
    return replace(verdict.case, steps=violation.steps, never=(violation.finding.rule,), sometimes=(), judge=(), why="")


def trace(case: Case, played: Sequence[Played], *, full: bool) -> Iterable[str]:
    """Yield the text of a replayed life; ``quiesce run`` reads it back.

    ``full`` shows every write; otherwise only the fields of devices that a later step looks at, and how many were
    left out.
    """
    yield print_case(case)
    yield "steps"
    for number, one in enumerate(played, start=1):
        answer = answer_of(one.outcome)
        yield f"  {number}  {one.step.event}" + (f"  -> {answer}" if answer else "")
        for what, option in one.step.choices:
            yield f"     choose {what} = {option}"
        later = frozenset().union(*(other.reads for other in played[number:]))
        yield from _details(one, None if full else later)


def _details(one: Played, later: frozenset[tuple[str, str]] | None) -> Iterable[str]:
    indent = "       "
    shown = hidden = 0
    for item in one.log:
        if isinstance(item, Message) and item.level == "window":
            if item.text:
                yield f"{indent}| window {item.text}"
                indent += "|   "
            else:
                indent = indent[:-4]
        elif isinstance(item, Message):
            yield f"{indent}says     {item.level + ':':<5} {item.text}"
        elif isinstance(item, Finding):
            yield f"{indent}BROKEN   {item.rule}: {item.why}"
        elif (later is None and _name(item) not in _BOOKKEEPING) or (later is not None and _matters(item, later)):
            shown += 1
            yield indent + change_line(item)
        else:
            hidden += 1
    if hidden and later is not None:
        yield f"{indent}and {hidden} {'more' if shown else 'other'} writes (quiesce show)"
    elif not shown and one.outcome.enabled:
        yield f"{indent}nothing changed"


def _matters(change: Change, later: frozenset[tuple[str, str]]) -> bool:
    return (
        change.path.startswith(("pci/", "hw/"))
        and change.field not in _ROUTINE
        and (change.path, change.field) in later
    )


def _name(change: Change) -> str:
    return f"{change.path}.{change.field}"


def change_line(change: Change) -> str:
    """Return one line for one changed field: side, name, values, place."""
    side = "machine" if change.path.startswith(_HARDWARE) else "kernel"
    show = _register_text if change.path.startswith("hw/") else value_text
    values = f"{show(change.old)} -> {show(change.new)}"
    return f"{side:<8} {_name(change):<38} {values:<28} {change.site}".rstrip()


def _register_text(value: object) -> str:
    return f"{value:#x}" if isinstance(value, int) and not isinstance(value, bool) else value_text(value)


def value_text(value: object) -> str:
    """Return a model value for people."""
    if isinstance(value, State):
        return value.path
    if isinstance(value, tuple):
        if hasattr(value, "_fields"):
            return str(getattr(value, "name", value))
        return "[" + ", ".join(value_text(item) for item in value) + "]"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    return str(value) if value != "" else "-"


def matrix(case: Case, verdicts: Sequence[tuple[str, Verdict]]) -> Iterable[str]:
    """Yield the table of a case: kernel sets and fixes against rules."""
    rules = sorted({rule for _, verdict in verdicts for rule in verdict.result.violations})
    rules = rules or [", ".join(case.never)]
    width = max(len("kernel set"), *(len(verdict.kernel) for _, verdict in verdicts))
    columns = [max(len(rule), 12) for rule in rules]
    yield f"matrix {case.name}: {case.title}"
    yield "  ".join(
        [f"{'kernel set':<{width}}", *(f"{r:<{w}}" for r, w in zip(rules, columns, strict=True)), "   states  judged"]
    )
    for label, verdict in verdicts:
        cells = [f"{_cell(verdict, rule):<{w}}" for rule, w in zip(rules, columns, strict=True)]
        yield "  ".join([f"{verdict.kernel:<{width}}", *cells, f"{verdict.result.states:>9}  {label}"]).rstrip()
        for missing in verdict.missing:
            yield f"{'':<{width}}  not shown: {missing}"


def _cell(verdict: Verdict, rule: str) -> str:
    violation = verdict.result.violations.get(rule)
    if violation is not None:
        return f"violated ({len(violation.steps)})"
    return HOLDS if not verdict.missing else "not understood"
