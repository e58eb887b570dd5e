"""Every rule that is raised is listed, every listed rule is raised, and every example breaks its rule."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import quiesce
from quiesce.cases.library import shipped
from quiesce.cli import FINDINGS, main
from quiesce.rules.page import commits
from quiesce.rules.registry import RULES, invariants, rule
from quiesce.rules.rule import Rule

SOURCE = Path(quiesce.__file__).parent
RULE_ID = re.compile(r"[a-z]+/[a-z0-9]+(?:-[a-z0-9]+)*")
RAISING = {"find": 0, "crash": 0, "warn": 1, "Finding": 0, "Invariant": 0}
"""Function to the position of the rule among its arguments."""
FAMILIES = {item.id.partition("/")[0] for item in RULES}
UNMET = {f"iommu/{verb}-without-group" for verb in ("map", "unmap")}
"""The one f-string among the rules: ``iommu/{verb}-without-group`` in kernel/dma.py."""


def raised() -> Iterator[str]:
    """Yield every rule id that a call in the source names."""
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield from rules_of(node)


def rules_of(call: ast.Call) -> Iterator[str]:
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    place = RAISING.get(name)
    if place is None or len(call.args) <= place:
        return
    argument = call.args[place]
    if isinstance(argument, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in argument.values]
        text = "".join(str(part) for part in parts)
        assert not RULE_ID.fullmatch(text.replace("{}", "x")) or text == "iommu/{}-without-group", text
        yield from UNMET if text == "iommu/{}-without-group" else ()
        return
    constants = [n.value for n in ast.walk(argument) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    yield from (text for text in constants if RULE_ID.fullmatch(text))


def test_the_registry_lists_exactly_what_is_raised() -> None:
    assert {item.id for item in RULES} == set(raised())


def test_ids_are_unique_well_formed_and_sorted() -> None:
    ids = [item.id for item in RULES]
    assert ids == sorted(set(ids))
    assert all(RULE_ID.fullmatch(name) for name in ids)


def test_every_invariant_has_a_rule() -> None:
    assert {item.rule for item in invariants()} <= {item.id for item in RULES}


def test_a_rule_is_found_by_its_id() -> None:
    assert rule("irq/nobody-cared").id == "irq/nobody-cared"
    with pytest.raises(KeyError):
        rule("irq/no-such-rule")


@pytest.mark.parametrize("item", RULES, ids=lambda item: item.id)
def test_a_rule_says_what_and_why_and_names_changes_that_exist(item: Rule) -> None:
    assert item.meaning.endswith(".")
    assert item.why.endswith(".")
    assert "\n" not in item.meaning
    assert all(change.subject for change in commits(item))


@pytest.mark.parametrize("item", [item for item in RULES if item.example], ids=lambda item: item.id)
def test_the_example_of_a_rule_is_a_shipped_case_that_breaks_it(item: Rule, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(item.example)
    assert words[0] in shipped()
    assert main(["run", *words, "--format", "json"]) == FINDINGS
    assert item.id in json.loads(capsys.readouterr().out)["rules"]


def test_the_patterns_of_every_shipped_case_name_rules() -> None:
    families = FAMILIES | {"*"}
    ids = {item.id for item in RULES}
    for case in shipped().values():
        for pattern in case.never:
            if "*" in pattern:
                assert pattern.partition("/")[0] in families, (case.name, pattern)
            else:
                assert pattern in ids, (case.name, pattern)
