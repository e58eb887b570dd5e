"""What an explanation claims holds for any machine: tried by changing what it names."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from described_machines import machines
from quiesce.groups.conditions import Conditions
from quiesce.groups.cut import cuts
from quiesce.groups.decisive import joined_without
from quiesce.groups.edit import with_acs
from quiesce.groups.why import explain
from quiesce.kernel.changes import kernel
from quiesce.machine import pci_regs as r
from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.read import read_text

ALL = r.PCI_ACS_SV | r.PCI_ACS_RR | r.PCI_ACS_CR | r.PCI_ACS_UF
KERNELS = st.sampled_from(("v4.9", "v5.9", "v6.12", "v7.2"))
several = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def pairs(text: str) -> list[str]:
    return [line.split()[0] for line in text.splitlines() if line[2:3] == ":"]


@several
@given(machines(), KERNELS, st.data())
def test_verdicts_are_those_of_the_prediction(text: str, release: str, data: st.DataObject) -> None:
    description, conditions = read_text(text, "test"), Conditions(kernel(release))
    one, other = (data.draw(st.sampled_from(pairs(text))) for _ in range(2))
    found = explain(description, conditions, [one, other], history=False)
    groups = conditions.predict(description).groups
    together = any(f"0000:{one}" in group and f"0000:{other}" in group for group in groups)
    assert (found.verdict == "together") == together


@several
@given(machines(), KERNELS, st.data())
def test_giving_acs_to_what_is_named_parts_or_names_another_reason(
    text: str, release: str, data: st.DataObject
) -> None:
    description, conditions = read_text(text, "test"), Conditions(kernel(release))
    names = [data.draw(st.sampled_from(pairs(text))) for _ in range(2)]
    fixed: set[str] = set()
    while names[0] != names[1]:
        found = explain(description, conditions, names, history=False)
        steps = found.answers[0].steps
        if found.verdict != "together" or any(step.kind in ("alias", "own-alias") for step in steps):
            return
        blamed = {step.function for step in steps if step.kind in ("climbs", "beside") and "not isolated" in step.fact}
        assert not blamed & fixed, "what was given ACS is blamed again"
        if not blamed:
            assert any("conventional" in step.fact for step in steps)
            return
        for name in sorted(blamed):
            description = with_acs(description, name, ALL)
        fixed |= blamed


@several
@given(machines(), KERNELS, st.data())
def test_without_what_decides_they_would_be_together(text: str, release: str, data: st.DataObject) -> None:
    description, conditions = read_text(text, "test"), Conditions(kernel(release))
    names = [f"0000:{data.draw(st.sampled_from(pairs(text)))}" for _ in range(2)]
    found = explain(description, conditions, names, history=False)
    if found.verdict != "apart":
        return
    decisive = [step for step in found.answers[0].steps if step.decisive]
    assert decisive
    functions = sorted({step.function for step in decisive if step.kind == "isolates"})
    assert joined_without(description, conditions, names, functions) == bool(functions)
    for name in functions:
        fewer = [other for other in functions if other != name]
        assert not joined_without(description, conditions, names, fewer)


@several
@given(machines(), st.data())
def test_cuts_leave_fewer_of_the_unwanted(text: str, data: st.DataObject) -> None:
    description, conditions = read_text(text, "test"), Conditions(kernel("v6.12"))
    try:
        result = cuts(description, conditions, data.draw(st.sampled_from(pairs(text))))
    except BadInput:
        return
    for item in result.found:
        assert result.function in item.group
        assert len(set(item.group) & set(result.unwanted)) < max(len(result.unwanted), 1)
    assert result.found or result.nothing
