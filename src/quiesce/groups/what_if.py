"""Groups before and after a change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from quiesce.groups.conditions import Conditions
from quiesce.groups.edit import Edited, parse_place, removed, with_acs
from quiesce.groups.move import moved
from quiesce.groups.predict import Prediction
from quiesce.snapshot.description import MachineDescription
from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.layout import ACS_BITS

Groups = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """Groups that consist of the same functions together, before and after."""

    kind: str
    """``splits``, ``merges``, ``appears``, ``disappears``, ``loses`` or ``gains`` (members), ``regroups``."""
    before: Groups
    after: Groups
    """Under the addresses of before."""


@dataclass(frozen=True)
class Comparison:
    """What a change does to groups."""

    before: Prediction
    after: Prediction
    differences: tuple[Difference, ...]
    same: int
    """Groups that stay as they are."""
    renamed: Mapping[str, str]
    """Former address -> new one."""
    gone: frozenset[str]


def apply(description: MachineDescription, edits: Iterable[tuple[str, str]]) -> Edited:
    """Apply changes in order: (``move``, ``A=PORT``), (``remove``, ``A``), (``acs``, ``PORT=BITS``).

    Addresses are those of the machine as it is now. Raises BadInput.
    """
    renamed: dict[str, str] = {}
    gone: set[str] = set()
    for kind, text in edits:
        place, _, value = text.partition("=")
        place = _now(place, renamed)
        if kind == "acs":
            description = with_acs(description, str(parse_place(place)), parse_bits(value))
            continue
        edited = removed(description, place) if kind == "remove" else moved(description, place, _now(value, renamed))
        description = edited.description
        former = {new: old for old, new in renamed.items()}
        gone |= {former.get(bdf, bdf) for bdf in edited.gone}
        for old, new in edited.renamed.items():
            renamed[former.get(old, old)] = new
    return Edited(description, renamed, frozenset(gone))


def _now(place: str, renamed: Mapping[str, str]) -> str:
    full = str(parse_place(place))
    now = renamed.get(full, full)
    return now if "." in place else now.rpartition(".")[0]


def parse_bits(text: str) -> int | None:
    """Read ``SV,RR,CR,UF`` or ``none``; raises BadInput."""
    if text == "none":
        return None
    names = [name.upper() for name in text.split(",") if name]
    if not names or any(name not in ACS_BITS for name in names):
        raise BadInput("command line", f"--acs {text}", f"none, or some of {','.join(ACS_BITS)}")
    return sum(ACS_BITS[name] for name in set(names))


def compare(
    description: MachineDescription, edits: Sequence[tuple[str, str]], before: Conditions, after: Conditions
) -> Comparison:
    """Predict before and after; raises BadInput."""
    edited = apply(description, edits)
    old, new = before.predict(description), after.predict(edited.description)
    former = {now: then for then, now in edited.renamed.items()}
    groups = tuple(tuple(sorted(former.get(bdf, bdf) for bdf in group)) for group in new.groups)
    found = tuple(differences(old.groups, groups))
    return Comparison(old, new, found, len(set(old.groups) & set(groups)), edited.renamed, edited.gone)


def differences(before: Groups, after: Groups) -> Iterator[Difference]:
    """Yield what became of groups that are not the same before and after, in bus order."""
    same = set(before) & set(after)
    old = [group for group in before if group not in same]
    new = [group for group in after if group not in same]
    by_member: dict[str, list[tuple[int, tuple[str, ...]]]] = {}
    for side, groups in enumerate((old, new)):
        for group in groups:
            for bdf in group:
                by_member.setdefault(bdf, []).append((side, group))
    seen: set[tuple[int, tuple[str, ...]]] = set()
    for start in [*((0, group) for group in old), *((1, group) for group in new)]:
        if start not in seen:
            yield _difference(_connected(start, by_member, seen))


def _connected(
    start: tuple[int, tuple[str, ...]],
    by_member: Mapping[str, list[tuple[int, tuple[str, ...]]]],
    seen: set[tuple[int, tuple[str, ...]]],
) -> list[tuple[int, tuple[str, ...]]]:
    rest, found = [start], []
    seen.add(start)
    while rest:
        here = rest.pop()
        found.append(here)
        for bdf in here[1]:
            for other in by_member[bdf]:
                if other not in seen:
                    seen.add(other)
                    rest.append(other)
    return found


def _difference(found: Sequence[tuple[int, tuple[str, ...]]]) -> Difference:
    old = tuple(sorted(group for side, group in found if side == 0))
    new = tuple(sorted(group for side, group in found if side == 1))
    if not old or not new:
        kind = "disappears" if old else "appears"
    elif len(old) == 1 and len(new) == 1:
        kind = "loses" if set(new[0]) < set(old[0]) else "gains" if set(old[0]) < set(new[0]) else "regroups"
    else:
        kind = "splits" if len(old) == 1 else "merges" if len(new) == 1 else "regroups"
    return Difference(kind, old, new)
