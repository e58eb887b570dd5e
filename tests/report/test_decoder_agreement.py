"""The oracle is the lspci that is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from quiesce.report.decoder_agreement import (
    KNOWN_DIFFERENCES,
    Table,
    compare_dump,
    decoder_agreement,
    lspci_version,
    split,
)
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import FunctionDescription
from quiesce.snapshot.text import read_text

TESTS = Path(__file__).parents[1]
DATA = TESTS.parents[1] / "shared" / "data"
SHIPPED = TESTS.parent / "src" / "quiesce" / "cases" / "machines"
NEWER = (
    "IDO Request Enable",
    "IDO Completion Enable",
    "Emergency Power Reduction Request",
    "End-End TLP Prefix Blocking",
)
"""Fields that lspci shows from 3.10 on."""

pytestmark = pytest.mark.skipif(lspci_version() is None, reason="no lspci is installed")


def _random_machine(seed: int, rounds: int) -> list[FunctionDescription]:
    path = TESTS / "snapshot" / "capabilities" / "random_functions.py"
    spec = importlib.util.spec_from_file_location("random_functions", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: list[FunctionDescription] = module.random_machine(seed, rounds)
    return found


def dumps() -> list[Path]:
    folders = (DATA / "hexdumps", DATA / "hexdumps" / "pciutils-tests")
    files = [path for folder in folders for path in folder.iterdir() if path.is_file()]
    return sorted([*files, *DATA.glob("machines/*/lspci*xxx*.txt")])


def test_a_description_agrees() -> None:
    table = Table()
    machine = read_text("machine small\n00:01.0 root-port bus=01 acs slot\n01:00.0 igb sriov=8\n", "small")
    compare_dump(table, machine.functions, "small")
    assert (table.functions, table.differ, table.unexplained) == (2, 0, [])
    assert table.agree > 200


def test_a_wrong_bit_is_seen() -> None:
    """The comparison can fail: a function that is not the one that lspci was given differs."""
    machine = read_text("machine small\n00:01.0 root-port bus=01 acs slot\n", "small").functions[0]
    config = bytearray(machine.config)
    config[4] ^= 0x04
    table = Table()
    from quiesce.report import decoder_agreement as module

    said = next(split(module.lspci_decodes(module.write([machine]))[0]))
    module._compare(table, module.decode(FunctionDescription(machine.bdf, bytes(config))), said, "here")
    assert [row.name for row in table.rows.values() if row.differ] == ["Bus Master Enable"]
    assert table.unexplained


def test_files_without_bytes_are_listed(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("nothing\n")
    table = decoder_agreement([tmp_path / "empty.txt"])
    assert (table.dumps, len(table.unread)) == (0, 1)


def test_split_joins_wrapped_lines() -> None:
    text = "0000:00:01.0 0604: 8086:1901\n\tControl: I/O+\n\tCapabilities: [40] Express\n\t\tDevCap:\tA\n\t\t\tB+\n"
    (said,) = split(text)
    assert said.lines == ["Control: I/O+"]
    assert said.capabilities[0x40].lines == ["DevCap:\tA B+"]


@pytest.mark.slow
def test_real_machines_agree() -> None:
    if not DATA.is_dir():
        pytest.skip("the collection of real dumps is not here")
    table = decoder_agreement(dumps())
    assert table.unexplained == []
    assert table.unread == []
    assert table.dumps >= 44
    assert table.agree > 40_000


@pytest.mark.slow
def test_shipped_machines_agree() -> None:
    table = decoder_agreement(sorted(SHIPPED.glob("*.json")))
    assert table.unexplained == []
    assert table.agree > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_random_registers_agree(seed: int) -> None:
    table = Table()
    functions = _random_machine(seed, 60)
    compare_dump(table, functions, "random")
    assert table.unread == []
    assert table.functions == len(functions)
    assert table.unexplained == []
    never = {row.name for key, row in table.rows.items() if not row.agree and key not in KNOWN_DIFFERENCES}
    assert never == set(NEWER)
    assert {key for key, row in table.rows.items() if row.differ} <= set(KNOWN_DIFFERENCES)
    assert Bdf(0, 0, 0, 0) == functions[0].bdf
