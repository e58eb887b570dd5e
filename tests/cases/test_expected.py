"""Every shipped case gives what lies beside its page: the own kernel at once, every row of the page in the slow set."""

from __future__ import annotations

import pytest

from quiesce.cases.case import Case
from quiesce.cases.expected import expected_path, expected_text, row_text
from quiesce.cases.library import BUGS, find_case, shipped
from quiesce.cases.verdict import HOLDS, NOT_UNDERSTOOD, VIOLATED, rows, run

CLEAN = {"teach-correct"}
"""Cases of which the own kernel breaks nothing."""


def blocks(text: str) -> dict[str, str]:
    """Return the table by kernel set: the head line of each block is not indented."""
    found: dict[str, str] = {}
    for line in text.splitlines(keepends=True):
        if not line.startswith(" "):
            kernel = line.partition(": ")[0]
            found[kernel] = ""
        found[kernel] += line
    return found


@pytest.mark.parametrize("name", shipped())
def test_a_case_gives_on_its_own_kernel_what_is_expected(name: str) -> None:
    case = shipped()[name]
    table = blocks(expected_path(case).read_text())
    assert row_text(run(case)) == table[case.kernel]


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped())
def test_a_case_gives_on_every_row_what_is_expected(name: str) -> None:
    case = shipped()[name]
    assert expected_text(case) == expected_path(case).read_text()


@pytest.mark.parametrize("name", shipped())
def test_a_case_says_why_what_shows_it_and_on_which_kernels(name: str) -> None:
    case = shipped()[name]
    kernels = [row.kernel for row in case.judge]
    assert case.name == name
    assert case.title
    assert case.source
    assert case.why
    assert case.sometimes
    assert case.kernel in kernels
    assert len(kernels) == len(set(kernels)) >= 2


@pytest.mark.parametrize("name", shipped())
def test_the_table_has_the_rows_of_the_page_and_none_that_was_not_understood(name: str) -> None:
    case = shipped()[name]
    table = blocks(expected_path(case).read_text())
    assert list(table) == [row.kernel for row in rows(case)]
    for kernel, block in table.items():
        assert NOT_UNDERSTOOD not in block, kernel


@pytest.mark.parametrize("name", shipped())
def test_the_own_kernel_of_a_case_shows_what_it_is_about(name: str) -> None:
    case = shipped()[name]
    block = blocks(expected_path(case).read_text())[case.kernel]
    assert f": {HOLDS if name in CLEAN else VIOLATED}," in block


def test_some_row_of_every_bug_holds_and_some_is_violated() -> None:
    for name in BUGS:
        text = expected_path(shipped()[name]).read_text()
        assert f": {HOLDS}," in text
        assert f": {VIOLATED}," in text


def test_the_bugs_come_first_then_the_others_by_name() -> None:
    names = list(shipped())
    assert tuple(names[: len(BUGS)]) == BUGS
    assert names[len(BUGS) :] == sorted(names[len(BUGS) :])


def test_a_case_is_found_by_name_and_by_file() -> None:
    by_name: Case = find_case("teach-correct")
    assert find_case(by_name.path) == by_name
