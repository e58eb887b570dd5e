"""The text that people and parsers read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from quiesce.cases.case import parse_case
from quiesce.cases.library import shipped
from quiesce.cases.scenario import build
from quiesce.cases.verdict import Verdict, run
from quiesce.explore.replay import replay
from quiesce.report import text
from quiesce.world import Change


def verdict_of(name: str, kernel: str = "") -> Verdict:
    case = shipped()[name]
    return run(case.on(kernel) if kernel else case)


def trace_of(verdict: Verdict, *, full: bool) -> list[str]:
    assert verdict.first is not None
    case = text.trace_case(verdict, verdict.first)
    return list(text.trace(case, replay(build(case), case.steps), full=full))


def test_the_head_line_names_case_kernel_verdict_rule_counts_and_bound() -> None:
    line = text.verdict_line(verdict_of("intx-restore-wrong"))
    assert line.startswith(
        "intx-restore-wrong  v6.12  VIOLATED  devres/wrong-intx-restore  2 events (shortest)  3 states"
    )
    assert "ended by: " in line
    clean = text.verdict_line(verdict_of("intx-restore-wrong", "v6.14"))
    assert clean.startswith("intx-restore-wrong  v6.14  holds  3 states")


@pytest.mark.parametrize("full", [False, True])
def test_a_trace_is_a_case_with_the_same_steps(full: bool) -> None:
    verdict = verdict_of("vfio-foreign-bind")
    case = parse_case("\n".join(trace_of(verdict, full=full)))
    assert verdict.first is not None
    assert case.steps == verdict.first.steps
    assert case.never == ("vfio/foreign-bind",)


def test_a_short_trace_says_how_much_it_leaves_out_and_a_full_one_leaves_out_nothing() -> None:
    verdict = verdict_of("intx-restore-wrong")
    short, full = trace_of(verdict, full=False), trace_of(verdict, full=True)
    assert any(line.endswith("writes (quiesce show)") for line in short)
    assert not any("quiesce show" in line for line in full)
    assert len(short) < len(full)


def test_every_change_names_its_side_its_field_and_the_function_that_wrote_it() -> None:
    lines = [line.split() for line in trace_of(verdict_of("intx-restore-wrong"), full=True)]
    wrote = [words for words in lines if words[0] in ("machine", "kernel") and "->" in words]
    assert ["machine", "hw/0000:00:04.0.COMMAND"] in [words[:2] for words in wrote]
    assert any(words[:2] == ["kernel", "pci/0000:00:04.0.driver"] for words in wrote)
    assert all(words[-1] != "->" for words in wrote)


def test_a_change_that_a_commit_made_names_the_commit() -> None:
    lines = trace_of(verdict_of("iommu-msi-lost"), full=True)
    assert any("991de2e59090" in line and ".irq " in line for line in lines)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(True, "yes"), (False, "no"), (None, "-"), ("", "-"), (17, "17"), ((1, "a", None), "[1, a, -]"), ((), "[]")],
)
def test_values_are_shown_for_people(value: object, shown: str) -> None:
    assert text.value_text(value) == shown


def test_registers_are_shown_in_hex() -> None:
    line = text.change_line(Change("hw/0000:00:04.0", "COMMAND", 0x107, 0x507, "write"))
    assert line.split() == ["machine", "hw/0000:00:04.0.COMMAND", "0x107", "->", "0x507", "write"]


def test_the_matrix_has_a_column_for_each_broken_rule_and_says_what_was_not_shown() -> None:
    case = shipped()["teach-msi-off-first"]
    verdicts = [(row.label, run(case.on(row.kernel))) for row in case.judge]
    lines = list(text.matrix(case, verdicts))
    assert lines[1].split()[2:4] == ["irq/freed-with-action", "msi/disabled-with-action"]
    assert lines[2].split()[:4] == ["v4.1", "holds", "violated", "(2)"]
    missing = replace(verdict_of("teach-correct"), missing=("event frob *",), verdict="not understood")
    assert list(text.matrix(case, [("", missing)]))[-1].strip() == "not shown: event frob *"
