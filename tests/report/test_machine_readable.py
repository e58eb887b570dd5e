"""The JSON layout: its keys are pinned, because programs read it."""

from __future__ import annotations

import json
from dataclasses import replace

from quiesce.cases.library import shipped
from quiesce.cases.scenario import build
from quiesce.cases.verdict import run
from quiesce.explore.replay import replay
from quiesce.report import machine_readable
from quiesce.report.text import trace_case


def test_the_kernel_set_is_taken_apart() -> None:
    case = shipped()["intx-restore-wrong"].on("v6.12 + d555ed45a5a1 - fc8c818e7569")
    record = machine_readable.verdict_record(run(case))
    assert (record["kernel"], record["with"], record["without"]) == ("v6.12", ["d555ed45a5a1"], ["fc8c818e7569"])
    assert record["format"] == machine_readable.FORMAT == 1
    assert (record["verdict"], record["rule"], record["steps"], record["rules"]) == ("holds", None, None, {})
    json.dumps(record)


def test_what_was_not_shown_is_in_the_record() -> None:
    case = replace(shipped()["teach-correct"], sometimes=("event unplug *",), depth=1)
    record = machine_readable.verdict_record(run(case))
    assert record["verdict"] == "not understood"
    assert record["missing"] == ["event unplug *"]


def test_a_step_tells_what_it_answered_said_broke_and_changed() -> None:
    verdict = run(shipped()["vfio-foreign-bind"])
    assert verdict.first is not None
    case = trace_case(verdict, verdict.first)
    steps = [machine_readable.step_record(one) for one in replay(build(case), case.steps)]
    assert [step["crashed"] for step in steps] == [False, False, True]
    assert steps[0]["answer"] == 0
    assert steps[-1]["answer"] is None
    assert [finding["rule"] for finding in steps[-1]["findings"]] == ["vfio/foreign-bind"]
    assert any("vfio_group_nb_verify" in message["text"] for message in steps[-1]["messages"])
    assert all(set(change) == {"object", "field", "old", "new", "site"} for step in steps for change in step["changes"])
    json.dumps(steps)
