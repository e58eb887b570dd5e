"""Every machine that can be read, on every kind of kernel: nothing may raise, and every life can be told again."""

from __future__ import annotations

import random
import zlib
from pathlib import Path

import pytest

from explore.lives import model, random_life, short_search, told_again
from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.read import read_machine

DATA = Path(__file__).parents[2].parent / "shared" / "data"
KERNELS = ("v3.6", "v4.1", "v4.3-rc1", "v5.3", "v5.10", "v6.1", "v6.11-rc7", "v6.12", "v7.3")
LENGTH = 25

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason="needs the recorded machines in ../shared/data"),
]


def sources() -> list[Path]:
    files = [path for path in (DATA / "hexdumps").rglob("*") if path.is_file()]
    return sorted([*(DATA / "qemu-groups").glob("*.json"), *(DATA / "machines").glob("*/"), *files])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("source", sources() if DATA.is_dir() else [], ids=lambda path: path.name)
def test_nothing_raises(source: Path, kernel: str) -> None:
    try:
        description = read_machine(source)
    except BadInput:
        return
    if not description.functions:
        return
    turn = zlib.crc32(f"{source.name} {kernel}".encode())
    short_search(model(description, kernel, turn))
    m = model(description, kernel, turn, windows=1)
    rng = random.Random(turn)
    for _ in range(3):
        life = random_life(m, rng, LENGTH)
        assert told_again(m, life) == [outcome for _, outcome in life]
