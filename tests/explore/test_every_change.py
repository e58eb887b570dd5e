"""Every change can be switched at the release it came in, on a standard machine, and nothing raises."""

from __future__ import annotations

import random
import zlib

import pytest

from explore.lives import model, random_life, short_search
from quiesce.cases.scenario import find_machine
from quiesce.kernel import changes
from quiesce.kernel.kernelset import version_key
from quiesce.snapshot.errors import BadInput

MERGED = sorted(
    {value.id: value for value in vars(changes).values() if isinstance(value, changes.Change) and value.since}.values(),
    key=lambda change: change.id,
)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("machine", ["root-ports-acs--612--intel", "pcie-to-pci-bridge--612--amd"])
@pytest.mark.parametrize("sign", ["+", "-"])
@pytest.mark.parametrize("change", MERGED, ids=lambda change: change.id)
def test_nothing_raises(change: changes.Change, sign: str, machine: str) -> None:
    base = change.since if version_key(change.since) >= version_key("v3.5") else "v3.5"
    expression = f"{base} {sign} {change.id}"
    seed = zlib.crc32(f"{change.id} {sign} {machine}".encode())
    try:
        m = model(find_machine(machine), expression, seed, windows=1)
    except BadInput as error:
        if "setup, boot" not in str(error):
            raise
        return
    rng = random.Random(seed)
    for _ in range(3):
        random_life(m, rng, 25)
    short_search(model(find_machine(machine), expression, seed), states=15)
