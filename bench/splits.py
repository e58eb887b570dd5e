"""Which cells make the search run model code again, and in vain: a tool for whoever makes a search faster.

    python bench/splits.py CASE [--depth N] [--kernel SET] [--events N]

For the events with most runs: how many different effects those runs had, and the cells whose values told runs apart.
A cell is counted ``in vain`` where all that follows is the same whatever it holds: the model read it without need, or
read a whole list where one item mattered. Moving that read behind the one that decides saves the runs.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from quiesce.cases.library import find_case
from quiesce.cases.scenario import build
from quiesce.cases.verdict import watcher
from quiesce.explore.memo import Leaf, Memo
from quiesce.explore.model import Model
from quiesce.explore.search import Bounds, Search


@dataclass(slots=True)
class Splits:
    """What tells the runs of one event apart, by cell."""

    ways: Counter[int] = field(default_factory=Counter)
    in_vain: Counter[int] = field(default_factory=Counter)
    effects: set[Any] = field(default_factory=set)


def splits_of(memo: Memo) -> Splits:
    """Return what tells the runs of ``memo`` apart."""
    found = Splits()
    found.effects = set(_effects(memo.root, found))
    return found


def _effects(node: Any, found: Splits) -> frozenset[Any]:
    if node is None:
        return frozenset()
    if isinstance(node, Leaf):
        return frozenset([(node.delta.before, node.delta.after, node.delta.blind, str(node.result))])
    children = node.children
    below = [_effects(child, found) for child in (children.values() if isinstance(children, dict) else children)]
    if isinstance(children, dict):
        found.ways[node.branch] += len(below) - 1
        found.in_vain[node.branch] += len(below) - len(set(below))
    return frozenset().union(*below)


def report(model: Model, events: int) -> list[str]:
    """Return the lines for the ``events`` with most runs."""
    ranked = sorted(zip(model.searched, model.memos, strict=True), key=lambda pair: -pair[1].runs)
    lines = []
    for event, memo in ranked[:events]:
        found = splits_of(memo)
        lines.append(f"{event.text}: {memo.runs} runs, {len(found.effects)} effects")
        for cell, ways in found.ways.most_common(8):
            name = ".".join(model.world.name_of(cell))
            lines.append(f"    {name:<52}{ways:>6} ways{found.in_vain[cell]:>6} in vain")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="Show which cells make a search run model code again.")
    parser.add_argument("case", metavar="CASE")
    parser.add_argument("--depth", type=int)
    parser.add_argument("--kernel", metavar="SET")
    parser.add_argument("--events", type=int, default=8, help="show this many events (default 8)")
    args = parser.parse_args()
    case = find_case(args.case)
    case = case.on(args.kernel) if args.kernel else case
    case = replace(case, depth=args.depth) if args.depth else case
    model = build(case)
    result = Search(model, watcher(case), bounds=Bounds(case.depth)).run()
    print(f"{result.states} states, {result.transitions} transitions, {result.runs} runs, {result.seconds:.2f} s")
    print("\n".join(report(model, args.events)))


if __name__ == "__main__":
    main()
