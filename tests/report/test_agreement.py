"""How far model and kernels agree, as lines, JSON and a page."""

import json

import pytest

from quiesce.report import agreement
from quiesce.testbed.agreement import Confirmation, Row, table
from quiesce.testbed.compare import Life, Moment
from quiesce.testbed.known import Known
from quiesce.testbed.observation import UNSEEN

BDF = "0000:00:05.0"
BIND = f"bind ahci {BDF}"
UNBIND = f"unbind {BDF}"


def _sides(**fields: tuple[str, str]) -> tuple[dict[tuple[str, str], str], dict[tuple[str, str], str]]:
    model, kernel = ({(BDF, name): pair[at] for name, pair in fields.items()} for at in (0, 1))
    return model, kernel


AGREES = Moment(0, "start", "", "", *_sides(driver=("none", "none"), irq=("line", "line")))
DIFFERS = Moment(1, BIND, "0", "-EIO", *_sides(driver=("ahci", "none"), irq=("line", UNSEEN)))
LATER = Moment(2, UNBIND, "0", "0", *_sides(irq=("line", "none")))


@pytest.fixture(autouse=True)
def listed(monkeypatch) -> None:
    known = Known("6.1.*", "*", "unbind_*", "*", "irq", "the line is given back late")
    monkeypatch.setattr("quiesce.testbed.known.known_differences", lambda: (known,))


def confirmation(*lives: Life) -> Confirmation:
    return Confirmation(
        "small", "debian:6.1", "6.1.0", "v6.1", "intel", list(lives), machine=("no CFI",), seconds=2.345
    )


GOOD = confirmation(Life((), [AGREES]))
BAD = confirmation(Life((BIND, UNBIND), [AGREES, DIFFERS, LATER], f"{UNBIND}: blocked"), Life((), [AGREES]))
SKIPPED = Confirmation("other", "debian:6.1", "", "", "same", skipped="no QEMU |\n  here")


def test_a_confirmation_is_a_line_with_its_sums() -> None:
    where = "small                      debian:6.1     intel "
    assert agreement.line(GOOD) == f"{where} 1 lives: 2 agree, 0 differ, 0 not observed  2.3 s"
    assert agreement.line(BAD) == f"{where} 2 lives: 5 agree, 3 differ, 1 not observed  2.3 s"


def test_a_skipped_one_is_a_line_whatever_the_reason() -> None:
    assert agreement.line(SKIPPED) == "other                      debian:6.1     same   skipped: no QEMU | here"


def test_details_are_the_first_difference_of_each_life_that_has_one() -> None:
    assert agreement.details(GOOD) == []
    assert agreement.details(BAD) == [
        f"  step 1 {BIND}: step answer: model 0, kernel -EIO",
        f"    and 2 more in this life: {BIND}, {UNBIND}",
    ]
    assert agreement.details(confirmation(Life((UNBIND,), [LATER]))) == [
        f"  step 2 {UNBIND}: {BDF} irq: model line, kernel none  [listed: the line is given back late]",
        f"    in the life: {UNBIND}",
    ]


def test_or_all_of_them() -> None:
    assert agreement.details(BAD, every=True) == [
        f"  step 1 {BIND}: step answer: model 0, kernel -EIO",
        f"  step 1 {BIND}: {BDF} driver: model ahci, kernel none",
        f"  step 2 {UNBIND}: {BDF} irq: model line, kernel none  [listed: the line is given back late]",
        f"    in the life: {BIND}, {UNBIND}",
    ]


def test_the_table_is_aligned_and_counts_what_could_be_seen() -> None:
    assert agreement.rows_text(table([BAD, SKIPPED])) == [
        "kernel      release  iommu  family  agree  differ  listed  not observed  share",
        "debian:6.1  6.1.0    intel  device  3      2       0       0             60.00%",
        "debian:6.1  6.1.0    intel  irq     2      1       1       1             66.67%",
        "debian:6.1  6.1.0    intel  all     5      3       1       1             62.50%",
    ]
    assert agreement.rows_text([]) == [agreement.rows_text([Row("k", "r", "i", "f", 0, 0, 0, 0)])[0]]


def test_where_nothing_could_be_seen_nothing_is_wrong() -> None:
    assert Row("k", "r", "i", "f", 0, 0, 0, 5).share == 1.0
    assert Row("k", "r", "i", "f", 0, 1, 0, 5).share == 0.0


def test_the_record_has_everything_and_is_json() -> None:
    record = json.loads(json.dumps(agreement.record([BAD, SKIPPED])))
    assert record["format"] == 1
    assert [row["family"] for row in record["table"]] == ["device", "irq", "all"]
    assert record["table"][2] == {
        "kernel": "debian:6.1",
        "release": "6.1.0",
        "iommu": "intel",
        "family": "all",
        "agree": "5",
        "differ": "3",
        "listed": "1",
        "not observed": "1",
        "share": "62.50%",
    }
    first, second = record["confirmations"]
    assert {key: first[key] for key in ("case", "kernel", "release", "kernel_set", "iommu", "skipped")} == {
        "case": "small",
        "kernel": "debian:6.1",
        "release": "6.1.0",
        "kernel_set": "v6.1",
        "iommu": "intel",
        "skipped": "",
    }
    assert (first["machine"], first["seconds"]) == (["no CFI"], 2.35)
    assert first["lives"] == [
        {"events": [BIND, UNBIND], "ended": f"{UNBIND}: blocked", "skipped": ""},
        {"events": [], "ended": "", "skipped": ""},
    ]
    assert first["differences"][0] == {
        "life": [BIND, UNBIND],
        "step": 1,
        "event": BIND,
        "subject": "step",
        "field": "answer",
        "model": "0",
        "kernel": "-EIO",
        "listed": "",
    }
    assert [one["listed"] for one in first["differences"]] == ["", "", "the line is given back late"]
    assert (second["skipped"], second["lives"], second["differences"]) == (SKIPPED.skipped, [], [])


def test_the_page_has_a_table_for_each_question() -> None:
    text = agreement.page([BAD, BAD, SKIPPED])
    head, _, rest = text.partition("## Agreement by kernel, IOMMU and family\n\n")
    assert head.startswith("# How far to trust the model\n")
    assert rest.splitlines() == [
        "| kernel | release | iommu | family | agree | differ | listed | not observed | share |",
        "|---|---|---|---|---|---|---|---|---|",
        "| debian:6.1 | 6.1.0 | intel | device | 6 | 4 | 0 | 0 | 60.00% |",
        "| debian:6.1 | 6.1.0 | intel | irq | 4 | 2 | 2 | 2 | 66.67% |",
        "| debian:6.1 | 6.1.0 | intel | all | 10 | 6 | 2 | 2 | 62.50% |",
        "",
        "## Kernels",
        "",
        "The model ran these kernel sets ([kernel-sets.md](kernel-sets.md)).",
        "",
        "| kernel | release | kernel set |",
        "|---|---|---|",
        "| debian:6.1 | 6.1.0 | v6.1 |",
        "",
        "## By case",
        "",
        "| case | kernel | iommu | lives | agree | differ |",
        "|---|---|---|---|---|---|",
        "| small | debian:6.1 | intel | 2 | 5 | 3 |",
        "| small | debian:6.1 | intel | 2 | 5 | 3 |",
        "",
        "## Differences",
        "",
        "| kernel | event | field | what | reason | times |",
        "|---|---|---|---|---|---|",
        "| debian:6.1 | bind | answer | model 0, kernel -EIO | not explained yet | 2 |",
        "| debian:6.1 | bind | driver | model ahci, kernel none | not explained yet | 2 |",
        "| debian:6.1 | unbind | irq | model line, kernel none | the line is given back late | 2 |",
        "",
        "## Not tried",
        "",
        "| case | what stopped it | times |",
        "|---|---|---|",
        r"| other | no QEMU \| here | 1 |",
        f"| small | {UNBIND}: blocked | 2 |",
    ]


def test_a_page_about_what_agrees_says_so() -> None:
    text = agreement.page([GOOD])
    assert "\n## Differences\n\nNone.\n" in text
    assert text.endswith("\n## Not tried\n\nNothing was left out.\n")
    assert "None." not in agreement.page([BAD])


def test_groups_with_bars_between_them_stay_in_their_cell() -> None:
    seen = ({("system", "groups"): "a | b"}, {("system", "groups"): "a b"})
    text = agreement.page([confirmation(Life((), [Moment(0, "start", "", "", *seen)]))])
    assert r"| debian:6.1 | start | groups | model a \| b, kernel a b | not explained yet | 1 |" in text


def test_what_a_case_was_lived_without_is_said() -> None:
    one = confirmation(Life((), [AGREES]))
    one.left_out = "without what it chooses: a = b"
    assert agreement.details(one) == ["  lived without what it chooses: a = b"]
    assert "| small | lived without what it chooses: a = b | 1 |" in agreement.page([one])
