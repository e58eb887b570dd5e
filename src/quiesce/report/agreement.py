"""The agreement of model and real kernels as text, JSON and a page of documentation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from quiesce.testbed.agreement import Confirmation, Row, table
from quiesce.testbed.compare import AGREE, DIFFER, UNOBSERVED

FORMAT = 1
_HEAD = ("kernel", "release", "iommu", "family", "agree", "differ", "listed", "not observed", "share")


def line(one: Confirmation) -> str:
    """Return one confirmation in a line."""
    where = f"{one.case:<26} {one.kernel:<14} {one.iommu:<6}"
    if one.skipped:
        return f"{where} skipped: {' '.join(one.skipped.split())}"
    counts = Counter[str]()
    for (_, verdict), number in one.counts.items():
        counts[verdict] += number
    told = f"{counts[AGREE]} agree, {counts[DIFFER]} differ, {counts[UNOBSERVED]} not observed"
    return f"{where} {len(one.lives)} lives: {told}  {one.seconds:.1f} s"


def details(one: Confirmation, every: bool = False) -> list[str]:
    """Return the first difference of every life, or all of them, with the events of the life."""
    lines = [f"  lived {one.left_out}"] if one.left_out else []
    for life in one.lives:
        found = [(difference, why) for owner, difference, why in one.differences() if owner is life]
        for difference, why in found if every else found[:1]:
            lines.append(f"  {difference}" + (f"  [listed: {why}]" if why else ""))
        if len(found) > 1 and not every:
            lines.append(f"    and {len(found) - 1} more in this life: {', '.join(life.events)}")
        elif found:
            lines.append(f"    in the life: {', '.join(life.events)}")
    return lines


def rows_text(rows: Sequence[Row]) -> list[str]:
    """Return the agreement table, aligned."""
    cells = [_HEAD, *(_cells(row) for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(_HEAD))]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _cells(row: Row) -> tuple[str, ...]:
    numbers = (row.agree, row.differ, row.listed, row.unobserved)
    return (row.kernel, row.release, row.iommu, row.family, *map(str, numbers), f"{row.share:.2%}")


def record(confirmations: Iterable[Confirmation]) -> dict[str, object]:
    """Return everything for machines."""
    known = list(confirmations)
    return {
        "format": FORMAT,
        "table": [dict(zip(_HEAD, _cells(row), strict=True)) for row in table(known)],
        "confirmations": [_confirmation(one) for one in known],
    }


def _confirmation(one: Confirmation) -> dict[str, object]:
    return {
        "case": one.case,
        "kernel": one.kernel,
        "release": one.release,
        "kernel_set": one.kernel_set,
        "iommu": one.iommu,
        "skipped": one.skipped,
        "machine": list(one.machine),
        "left_out": one.left_out,
        "seconds": round(one.seconds, 2),
        "lives": [{"events": list(life.events), "ended": life.ended, "skipped": life.skipped} for life in one.lives],
        "differences": [
            {"life": list(life.events), **difference._asdict(), "listed": why}
            for life, difference, why in one.differences()
        ],
    }


# -- the page ------------------------------------------------------------------------------------------------

_INTRODUCTION = """# How far to trust the model

Made by `quiesce confirm --recorded tests/testbed/recordings/*.json.gz --write docs/agreement.md` from what was
recorded, or anew by `quiesce confirm --all --write docs/agreement.md`. The same lives were lived by the model and by
real Linux kernels in QEMU; after every step everything in [observations.md](observations.md) was looked at on both
sides and compared as text. *Differ* counts every observation on which they part, *listed* those of them whose reason
is given below. What could not be seen counts for nothing. A case is lived on the IOMMU of its machine, and on
another one where it is listed with both.
"""


def page(confirmations: Iterable[Confirmation]) -> str:
    """Return docs/agreement.md."""
    known = list(confirmations)
    parts = [_INTRODUCTION, "## Agreement by kernel, IOMMU and family\n", *_markdown(_HEAD, map(_cells, table(known)))]
    parts += [
        "\n## Kernels\n",
        "The model ran these kernel sets ([kernel-sets.md](kernel-sets.md)).\n",
        *_kernels(known),
    ]
    parts += ["\n## By case\n", *_by_case(known)]
    parts += ["\n## Differences\n", *_differences(known)]
    parts += ["\n## Not tried\n", *_not_tried(known)]
    return "\n".join(parts) + "\n"


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return lines + [f"| {' | '.join(map(_cell, row))} |" for row in rows]


def _cell(text: str) -> str:
    """Groups have bars between them, and a reason may have several lines; neither may end a cell."""
    return " ".join(text.split()).replace("|", r"\|")


def _kernels(known: Sequence[Confirmation]) -> list[str]:
    rows = {(one.kernel, one.release, one.kernel_set): None for one in known if one.release}
    return _markdown(("kernel", "release", "kernel set"), sorted(rows))


def _by_case(known: Sequence[Confirmation]) -> list[str]:
    rows = []
    for one in known:
        if not one.skipped:
            counts = Counter[str]()
            for (_, verdict), number in one.counts.items():
                counts[verdict] += number
            rows.append((one.case, one.kernel, one.iommu, str(len(one.lives)), str(counts[AGREE]), str(counts[DIFFER])))
    return _markdown(("case", "kernel", "iommu", "lives", "agree", "differ"), rows)


def _differences(known: Sequence[Confirmation]) -> list[str]:
    found: Counter[tuple[str, str, str, str, str]] = Counter()
    for one in known:
        for _, difference, why in one.differences():
            event = difference.event.split()[0]
            told = f"model {difference.model}, kernel {difference.kernel}"
            found[one.kernel, event, difference.field, told, why or "not explained yet"] += 1
    rows = [(*key, str(number)) for key, number in sorted(found.items())]
    if not rows:
        return ["None."]
    return _markdown(("kernel", "event", "field", "what", "reason", "times"), rows)


def _not_tried(known: Sequence[Confirmation]) -> list[str]:
    reasons: Counter[tuple[str, str]] = Counter()
    for one in known:
        if one.skipped:
            reasons[one.case, one.skipped] += 1
        if one.left_out:
            reasons[one.case, f"lived {one.left_out}"] += 1
        for life in one.lives:
            if life.skipped or life.ended:
                reasons[one.case, life.skipped or life.ended] += 1
    rows = [(case, why, str(number)) for (case, why), number in sorted(reasons.items())]
    return _markdown(("case", "what stopped it", "times"), rows) if rows else ["Nothing was left out."]
