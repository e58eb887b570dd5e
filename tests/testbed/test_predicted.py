from dataclasses import replace

import pytest

from quiesce.cases.case import Case
from quiesce.cases.scenario import build, find_machine
from quiesce.explore.model import Model, Outcome, Step
from quiesce.explore.replay import play
from quiesce.kernel.kernel import Finding, Message
from quiesce.testbed.messages import Listener
from quiesce.testbed.observation import DEVICE_FIELDS, FIELDS, SYSTEM, SYSTEM_FIELDS, UNSEEN
from quiesce.testbed.predicted import alarms_of, predict, predict_outside

AHCI, E1000E = "0000:00:1f.2", "0000:01:00.0"
CASE = Case(
    name="seen",
    machine="root-ports-acs--612--intel",
    kernel="v6.12",
    drivers=("ahci", "e1000e", "vfio-pci"),
    devices=(AHCI, E1000E),
    steps=(Step("boot"),),
)


def _model(kernel: str = "v6.12") -> Model:
    return build(replace(CASE, kernel=kernel), find_machine(CASE.machine))


def _seen(model: Model, bdf: str) -> dict[str, str]:
    return {name: text for (subject, name), text in predict(model.kernel, (AHCI, E1000E)).items() if subject == bdf}


def test_every_field_of_every_subject_is_there() -> None:
    seen = predict(_model().kernel, (AHCI, E1000E))
    assert {name for subject, name in seen if subject == AHCI} == set(DEVICE_FIELDS)
    assert {name for subject, name in seen if subject == SYSTEM} == set(SYSTEM_FIELDS)


def test_a_bound_device() -> None:
    model = _model()
    play(model, Step(f"bind ahci {AHCI}"))
    seen = _seen(model, AHCI)
    expected = {
        "present": "1",
        "driver": "ahci",
        "enable_cnt": "1",
        "is_managed": "1",
        "devres": "-",
        "irq": "message",
        "vectors": "1",
        "message_handlers": "1",
        "line_handlers": "-",
        "msi": "1",
        "msi_enabled": "1",
        "msix": "-",
        "master": "1",
        "intx_disable": "1",
        "dma": "iommu",
        "group": "0000:00:1f.0 0000:00:1f.2 0000:00:1f.3",
        "group_type": "DMA",
        "group_domain": "default",
        "group_users": "1",
    }
    assert {name: seen[name] for name in expected} == expected


def test_a_device_that_has_been_let_go() -> None:
    model = _model()
    for event in ("bind", "unbind"):
        play(model, Step(f"{event} ahci {AHCI}" if event == "bind" else f"unbind {AHCI}"))
    seen = _seen(model, AHCI)
    assert (seen["driver"], seen["irq"], seen["vectors"], seen["devres"]) == ("none", "line", "0", "none")


def test_a_removed_device_is_on_no_bus_and_still_answers() -> None:
    model = _model()
    play(model, Step(f"remove {E1000E}"))
    seen = _seen(model, E1000E)
    assert (seen["present"], seen["driver"], seen["mem"]) == ("0", "-", "1")


def test_a_device_that_is_gone_does_not_answer() -> None:
    model = _model()
    play(model, Step(f"unplug {E1000E}"))
    seen = _seen(model, E1000E)
    assert (seen["present"], seen["mem"], seen["msi"]) == ("1", "gone", "gone")


def test_groups_are_told_by_their_members() -> None:
    seen = predict(_model().kernel, (AHCI,))
    assert "0000:00:1f.0 0000:00:1f.2 0000:00:1f.3" in seen[SYSTEM, "groups"].split(" | ")
    assert seen[SYSTEM, "empty_groups"] == "0"


def test_owners_are_not_to_be_seen_before_they_were_kept() -> None:
    assert _seen(_model("v5.10"), AHCI)["group_users"] == UNSEEN


@pytest.mark.parametrize("event", ["kexec", "suspend"])
def test_only_the_silicon_is_to_be_seen_without_a_kernel(event: str) -> None:
    model = _model()
    play(model, Step(f"bind ahci {AHCI}"))
    play(model, Step(event))
    seen = predict_outside(model.kernel, (AHCI,))
    assert seen[AHCI, "driver"] == UNSEEN
    assert seen[AHCI, "msi"] in ("0", "1")
    assert (predict(model.kernel, (AHCI,))[AHCI, "driver"] == UNSEEN) is (event == "kexec")


def test_looking_changes_nothing() -> None:
    model = _model()
    mark, before = model.world.mark(), model.world.fingerprint
    predict(model.kernel, (AHCI, E1000E))
    assert model.world.fingerprint == before
    assert not list(model.world.diff(mark))


def test_what_a_step_adds() -> None:
    warned = Outcome(True, None, False, "", (Message("WARN", "WARNING: drivers/pci/pci.c: pci_intx"),))
    listener = Listener()
    first, second = alarms_of(warned, listener), alarms_of(warned, listener)
    assert first == {(SYSTEM, "alarms"): "warn:pci", (SYSTEM, "waits"): "0", (SYSTEM, "taint"): "W"}
    assert second[SYSTEM, "alarms"] == "none"
    assert second[SYSTEM, "taint"] == "W"
    assert {name for _, name in first} <= set(FIELDS)


def test_what_follows_freed_memory_cannot_be_foretold() -> None:
    outcome = Outcome(True, None, True, "", (Finding("memory/use-after-free", "why"),))
    assert alarms_of(outcome)[SYSTEM, "alarms"] == UNSEEN
