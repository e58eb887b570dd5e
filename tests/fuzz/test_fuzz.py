import re
import time
from pathlib import Path
from random import Random

import pytest

from fuzz_formats import Format, formats
from fuzz_guard import Guard, Tally
from fuzz_large import SIZE, large_inputs
from fuzz_mutate import Mutator
from fuzz_run import main, run_plain
from fuzz_seeds import sealed
from quiesce.snapshot.errors import BadInput

FORMATS = formats()


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_mutated_inputs_give_a_result_or_one_error(name: str) -> None:
    tally = run_plain(FORMATS[name], seconds=3600, runs=60, seed=7, save=None)
    assert list(map(str, tally.crashes.values())) == []
    assert tally.runs == 60


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_some_mutated_inputs_still_read(name: str) -> None:
    chosen = FORMATS[name]
    guard = Guard(chosen.target, name, None)
    for seed in chosen.seeds()[:5]:
        guard.run(seed)
    assert guard.tally.refused < guard.tally.runs


def boom(data: bytes) -> None:
    if b"!" in data:
        raise KeyError(data)
    if b"?" in data:
        raise BadInput("f", "", "no question")


def test_a_crash_is_counted_and_its_first_input_saved(tmp_path: Path) -> None:
    guard = Guard(boom, "boom", tmp_path)
    for data in (b"a", b"b?", b"c!", b"d!"):
        guard.run(data)
    (crash,) = guard.tally.crashes.values()
    assert (guard.tally.runs, guard.tally.refused, crash.what, crash.count) == (4, 1, "KeyError", 2)
    assert Path(crash.file).read_bytes() == b"c!"


def test_a_run_that_does_not_end_is_stopped() -> None:
    guard = Guard(lambda data: [None for _ in iter(time.time, 0)], "endless", None, seconds=0.01)
    guard.run(b"")
    (crash,) = guard.tally.crashes.values()
    assert crash.what == "more than 0.01 s"


def test_tallies_add_up() -> None:
    total = Tally()
    for data in (b"!", b"x!"):
        guard = Guard(boom, "boom", None)
        guard.run(data)
        total.add(guard.tally)
    assert (total.runs, [crash.count for crash in total.crashes.values()]) == (2, [2])


def test_the_same_seed_gives_the_same_inputs() -> None:
    made = [Mutator([b"one\ntwo", b"three"], False, False, Random(3)) for _ in range(2)]
    first, second = ([mutator.next() for _ in range(50)] for mutator in made)
    assert first == second
    assert len(set(first)) > 25


def test_a_mutated_table_is_mostly_well_formed() -> None:
    mutator = Mutator([sealed(b"DMAR" + bytes(60))], True, True, Random(3))
    made = [mutator.next() for _ in range(100)]
    assert sum(sum(data) & 0xFF == 0 and len(data) > 36 for data in made) > 50


def test_large_inputs_are_large() -> None:
    chosen = Format("x", boom, lambda: [b"a\nbb\n"])
    made = [data for _, data in large_inputs(chosen)]
    assert len(made) > 15
    assert all(SIZE * 0.9 < len(data) <= SIZE for data in made)


def test_the_command_counts_runs_per_format(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["run.py", "--runs", "10", "--format", "mcfg,config", "--engine", "plain"])
    assert main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [re.match(r"(\w+) +(\d+) runs", line).groups() for line in lines] == [  # type: ignore[union-attr]
        ("mcfg", "5"),
        ("config", "5"),
        ("all", "10"),
    ]
