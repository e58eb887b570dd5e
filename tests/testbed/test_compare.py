from quiesce.testbed.agreement import Confirmation, table
from quiesce.testbed.compare import AGREE, DIFFER, UNOBSERVED, Difference, Life, Moment, family_of, judge, tally
from quiesce.testbed.known import Known, unexplained
from quiesce.testbed.observation import SYSTEM, UNSEEN

BDF = "0000:00:05.0"


def _moment(step: int, model: dict[str, str], kernel: dict[str, str], answers: tuple[str, str] = ("0", "0")) -> Moment:
    seen = [{(BDF, name): text for name, text in side.items()} for side in (model, kernel)]
    return Moment(step, "bind ahci" if step else "start", *answers, *seen)


def test_equal_texts_agree_and_what_nobody_saw_counts_for_nothing() -> None:
    assert judge("1", "1") == AGREE
    assert judge("1", "0") == DIFFER
    assert judge(UNSEEN, "1") == judge("1", UNSEEN) == UNOBSERVED


def test_a_field_that_one_side_lacks_was_not_observed() -> None:
    life = Life(("bind ahci",), [_moment(0, {"driver": "none", "irq": "line"}, {"driver": "none"})])
    assert tally([life]) == {("device", AGREE): 1, ("irq", UNOBSERVED): 1}


def test_differences_name_step_subject_field_and_both_texts() -> None:
    moments = [
        _moment(0, {"driver": "none"}, {"driver": "none"}),
        _moment(1, {"msi": "1"}, {"msi": "0"}, ("0", "-EIO")),
    ]
    found = Life(("bind ahci",), moments).differences()
    assert found == [
        Difference(1, "bind ahci", "step", "answer", "0", "-EIO"),
        Difference(1, "bind ahci", BDF, "msi", "1", "0"),
    ]
    assert str(found[1]) == f"step 1 bind ahci: {BDF} msi: model 1, kernel 0"


def test_an_operation_that_tells_nothing_has_gone_well() -> None:
    life = Life(("remove",), [_moment(1, {}, {}, ("", "0"))])
    assert life.differences() == []
    assert tally([life]) == {("device", AGREE): 1}


def test_every_field_of_the_start_but_no_answer_is_compared() -> None:
    assert tally([Life((), [_moment(0, {"msi": "0"}, {"msi": "0"})])]) == {("msi", AGREE): 1}


def test_fields_belong_to_the_families_of_rules() -> None:
    assert [family_of(name) for name in ("irq", "msi_enabled", "is_managed", "group", "alarms")] == [
        "irq",
        "msi",
        "devres",
        "group",
        "message",
    ]


def _life(difference: Difference, *before: str) -> Life:
    events = (*before, difference.event)
    sides = ({(difference.subject, difference.field): text} for text in (difference.model, difference.kernel))
    return Life(events, [Moment(len(events), difference.event, "0", "0", *sides)])


def test_a_listed_difference_is_explained_on_the_kernels_it_is_listed_for_only(monkeypatch) -> None:
    listed = Known("5.10.*", "amd", "bind_*", "*", "irq", "because")
    monkeypatch.setattr("quiesce.testbed.known.known_differences", lambda: (listed,))
    difference = Difference(1, "bind ahci 0000:00:05.0", BDF, "irq", "line", "none")
    assert unexplained(_life(difference), "5.10.0-32-amd64", "amd") == []
    assert unexplained(_life(difference), "5.10.0-32-amd64", "intel") == [difference]
    assert unexplained(_life(difference), "6.1.0-50-amd64", "amd") == [difference]
    assert unexplained(_life(difference._replace(event="unbind 0000:00:05.0")), "5.10.0-32-amd64", "amd") != []


def test_a_listed_difference_can_last(monkeypatch) -> None:
    listed = Known("*", "*", "rescan+", "*", "irq", "because")
    monkeypatch.setattr("quiesce.testbed.known.known_differences", lambda: (listed,))
    difference = Difference(2, "unbind 0000:00:05.0", BDF, "irq", "line", "none")
    assert unexplained(_life(difference, "rescan"), "6.1.0", "amd") == []
    assert unexplained(_life(difference, "suspend"), "6.1.0", "amd") == [difference]


def test_the_table_adds_up_by_kernel_iommu_and_family(monkeypatch) -> None:
    monkeypatch.setattr("quiesce.testbed.known.known_differences", lambda: ())
    life = Life(("x",), [_moment(0, {"msi": "0", "irq": "line"}, {"msi": "1", "irq": "line"})])
    one = Confirmation("a", "debian:6.1", "6.1.0", "v6.1", "intel", [life])
    skipped = Confirmation("b", "debian:6.1", "6.1.0", "v6.1", "amd", skipped="cannot be built")
    rows = {row.family: row for row in table([one, one, skipped])}
    assert {name: (row.agree, row.differ, row.unobserved) for name, row in rows.items()} == {
        "irq": (2, 0, 0),
        "msi": (0, 2, 0),
        "all": (2, 2, 0),
    }
    assert rows["all"].share == 0.5
    assert one.unexplained == 1
    assert SYSTEM not in rows
