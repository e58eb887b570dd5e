"""The search: shortest lives, exact counts, bounds that are told, and the same answers from several processes."""

from __future__ import annotations

import gzip
import json
from functools import partial
from pathlib import Path

import pytest

from explore.toys import counter, toy_model, toy_search
from quiesce.explore.checkpoint import load, save
from quiesce.explore.model import Step
from quiesce.explore.parallel import search_in_parallel
from quiesce.explore.replay import play, replay
from quiesce.explore.search import Bounds
from quiesce.snapshot.errors import BadInput


def test_every_state_is_found_once_and_the_shortest_lives_are_told() -> None:
    result = toy_search().run()
    assert (result.states, result.bound) == (16 + 2, "exhausted")
    lengths = {rule: len(violation.steps) for rule, violation in result.violations.items()}
    assert lengths == {"leak/regions": 5, "memory/refcount": 6, "dma/six": 6}
    assert result.violations["memory/refcount"].steps[-1] == Step("burst")
    assert result.taken["down a"] > 0
    assert result.waits == {"down a": "somebody to count up"}


def test_a_search_that_depth_ends_says_so() -> None:
    result = toy_search(depth=4).run()
    assert result.bound == "depth 4"
    assert not result.violations
    assert toy_search(depth=5).run().violations.keys() == {"leak/regions"}


def test_the_first_violation_ends_a_search_that_wants_one() -> None:
    result = toy_search(first_only=True).run()
    assert result.bound == "first violation"
    assert {rule: len(v.steps) for rule, v in result.violations.items()} == {"leak/regions": 5}


def test_windows_let_an_event_run_inside_another() -> None:
    without, within = toy_search(depth=1).run(), toy_search(depth=1, windows=1).run()
    assert (without.states, within.states) == (3, 6)
    search = toy_search(depth=8, windows=1)
    result = search.run()
    assert len(result.violations["leak/regions"].steps) == 4
    nested = [step for step in result.violations["leak/regions"].steps if step.choices]
    assert len(nested) == 1
    model = toy_model(windows=1)
    for step in result.violations["leak/regions"].steps:
        assert play(model, step).enabled
    assert counter(model.kernel, "a").value + counter(model.kernel, "b").value == 4


def test_an_injected_failure_is_a_choice_with_a_budget() -> None:
    result = toy_search(faults=1).run()
    assert "step down failed" in result.said
    assert "step down failed" not in toy_search().run().said


def test_a_replay_tells_every_write_with_its_function() -> None:
    played = replay(toy_model(), [Step("up a"), Step("down a"), Step("down a")])
    assert [(c.path, c.field, c.old, c.new) for c in played[0].changes] == [("counter/a", "value", 0, 1)]
    assert [one.outcome.enabled for one in played] == [True, True, False]
    assert played[-1].outcome.waits == "somebody to count up"


@pytest.mark.parametrize("jobs", [2, 3])
def test_several_processes_find_the_same(jobs: int) -> None:
    alone, together = toy_search(windows=1).run(), search_in_parallel(partial(toy_search, windows=1), jobs, 8)
    assert (together.states, together.transitions, together.bad) == (alone.states, alone.transitions, alone.bad)
    assert together.bound == alone.bound
    assert {r: len(v.steps) for r, v in together.violations.items()} == {
        r: len(v.steps) for r, v in alone.violations.items()
    }
    assert together.taken == alone.taken


def test_a_search_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    whole = toy_search().run()
    first = toy_search()
    first.bounds = Bounds(depth=8, states=9)
    assert first.run().bound == "9 states"
    save(first, tmp_path / "checkpoint")
    second = toy_search()
    load(second, tmp_path / "checkpoint")
    result = second.run()
    assert (result.states, result.transitions, result.bound) == (whole.states, whole.transitions, whole.bound)
    assert result.violations.keys() == whole.violations.keys()


@pytest.mark.parametrize("content", [b"", b"not gzip", b"\x1f\x8b\x08"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "checkpoint").write_bytes(content)
    with pytest.raises(BadInput, match="quiesce explore wrote"):
        load(toy_search(), tmp_path / "checkpoint")


def test_a_checkpoint_of_another_search_is_refused(tmp_path: Path) -> None:
    search = toy_search()
    search.run()
    save(search, tmp_path / "checkpoint")
    with pytest.raises(BadInput, match="same machine"):
        load(toy_search(windows=1), tmp_path / "checkpoint")


def test_what_was_found_before_a_stop_is_kept(tmp_path: Path) -> None:
    whole = toy_search().run()
    first = toy_search()
    first.bounds = Bounds(depth=8, states=15)
    early = first.run()
    assert early.violations
    save(first, tmp_path / "checkpoint")
    second = toy_search()
    load(second, tmp_path / "checkpoint")
    assert second.result.violations == early.violations
    assert (second.run().bad, second.result.violations.keys()) == (whole.bad, whole.violations.keys())


@pytest.mark.parametrize(
    "damage",
    [
        {"next": -1},
        {"next": "x"},
        {"states": [[-2, 0, []]]},
        {"states": [[0, 99, []]]},
        {"states": [["a", 0, []]]},
        {"states": 7},
        {"violations": [[1]]},
        {"bad": None},
    ],
)
def test_a_checkpoint_with_a_damaged_body_is_refused(tmp_path: Path, damage: dict[str, object]) -> None:
    path = tmp_path / "checkpoint"
    search = toy_search()
    search.run()
    save(search, path)
    record = json.loads(gzip.decompress(path.read_bytes())) | damage
    path.write_bytes(gzip.compress(json.dumps(record).encode()))
    with pytest.raises(BadInput, match="what quiesce explore wrote"):
        load(toy_search(), path)


def test_a_choice_that_nothing_asks_for_is_told() -> None:
    (played,) = replay(toy_model(), [Step("up a", (("no such thing", "x"),))])
    assert played.unasked == (("no such thing", "x"),)
    (plain,) = replay(toy_model(), [Step("up a")])
    assert plain.unasked == ()
