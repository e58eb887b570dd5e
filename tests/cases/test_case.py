"""The case format: what it reads, what it prints, and what it refuses."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quiesce.cases.case import Case, Row, parse_case, parse_kernel, print_case, print_step
from quiesce.explore.model import Step
from quiesce.snapshot.errors import BadInput

PAGE = """\
# a comment
case      small
title     A small one
machine   two
  00:00.0 host-bridge
  00:01.0 ahci
kernel    v6.11-rc2 + fc8c818e7569
drivers   ahci vfio-pci
depth     3
never
  context/*
steps
  1  bind ahci 0000:00:01.0  -> 0
       kernel   pci/0000:00:01.0.driver   - -> ahci
  2  unbind 0000:00:01.0
     choose x fails = True
judge
  v6.10                    before
  v6.11 - fc8c818e7569 without
why
  First line.

  Second line.
"""


def test_a_page_is_read() -> None:
    case = parse_case(PAGE)
    assert case.name == "small"
    assert case.machine.splitlines() == ["machine two", "00:00.0 host-bridge", "00:01.0 ahci"]
    assert case.drivers == ("ahci", "vfio-pci")
    assert case.steps == (
        Step("bind ahci 0000:00:01.0"),
        Step("unbind 0000:00:01.0", (("x fails", "True"),)),
    )
    assert case.judge == (Row("v6.10", "before"), Row("v6.11 - fc8c818e7569", "without"))
    assert case.why == "First line.\n\nSecond line."


def test_what_is_printed_reads_back() -> None:
    case = parse_case(PAGE)
    steps = [f"  1  {case.steps[0].event}", *print_step(case.steps[1], "  2  ")]
    text = "\n".join([print_case(case), "steps", *steps])
    again = parse_case(text)
    assert (again.machine, again.kernel, again.never) == (case.machine, case.kernel, case.never)
    assert again.steps == case.steps


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        ("", "line 1", "'case NAME' first"),
        ("case", "line 1", "a value after 'case'"),
        ("case a\nkernel v6.11", "end", "a 'machine' line"),
        ("case a\nmachine b", "end", "a 'kernel' line"),
        ("case a\nbogus b", "line 2", "not 'bogus'"),
        ("  indented", "line 1", "first column"),
        ("case a\ndepth many", "line 2", "whole number"),
        ("case a\nkernel v9.9", "line 2", "lies outside"),
        ("case a\nkernel v6.11 + 0000000", "line 2", "unknown change"),
        ("case a\nkernel v6.11 fc8c818e7569", "line 2", "a kernel set such as"),
        ("case a\nsteps\n  choose a = b", "line 3", "below a step"),
    ],
)
def test_a_bad_page_gets_one_line_with_its_place(text: str, place: str, expected: str) -> None:
    with pytest.raises(BadInput) as error:
        parse_case(text, "page.case")
    message = str(error.value)
    assert message.startswith("page.case")
    assert place in message
    assert expected in message
    assert "\n" not in message


@given(st.text(max_size=300))
def test_any_text_is_a_case_or_bad_input(text: str) -> None:
    with suppress(BadInput):
        assert isinstance(parse_case(text), Case)


@given(st.lists(st.sampled_from(PAGE.splitlines()), max_size=30))
def test_any_mixture_of_lines_is_a_case_or_bad_input(lines: list[str]) -> None:
    with suppress(BadInput):
        assert isinstance(parse_case("\n".join(lines)), Case)


def test_a_kernel_set_is_edited_by_commit_prefix_and_slug() -> None:
    name = parse_kernel("v6.11 + intx-gfp-atomic - fc8c818e7569").name
    assert name == "v6.11 + intx-gfp-atomic - fc8c818e7569"


def test_a_case_is_a_page_of_text() -> None:
    with pytest.raises(BadInput, match="at most 1 MiB"):
        parse_case("case x\n" + "source y\n" * 200_000)
