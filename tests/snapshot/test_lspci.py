import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import FunctionDescription
from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.lspci import read_lspci, write
from quiesce.snapshot.read import read_machine
from snapshot.snapdata import SHIPPED, dump, header, hex_lines, steady

ONE = header()


def configs(text: str) -> dict[str, bytes]:
    return {str(item.bdf): item.config for item in read_lspci(text, "dump").functions}


@pytest.mark.parametrize(
    "headline",
    [
        "00:1f.2 SATA controller [0106]: Intel Corporation 82801IR [8086:2922] (rev 02) (prog-if 01 [AHCI 1.0])",
        "0000:00:1f.2 SATA controller: Intel Corporation 82801IR (rev 02)",
        "00:1f.2 Class 0106: 8086:2922 (rev 02)",
        "00:1f.2 0106: 8086:2922",
        "00:1f.2",
    ],
)
def test_any_usual_headline_will_do(headline: str) -> None:
    assert configs(f"{headline}\n{hex_lines(ONE)}") == {"0000:00:1f.2": ONE}


@pytest.mark.parametrize("size", [64, 256, 4096])
def test_all_lengths_of_config_space(size: int) -> None:
    data = header(size=size)[:-1] + b"\x7f"
    assert configs(dump(("00:1f.2", data)))["0000:00:1f.2"] == data


def test_other_lines_between_and_carriage_returns_do_no_harm() -> None:
    lines = hex_lines(ONE).splitlines()
    text = (
        "Some mail says:\r\n\r\n00:1f.2 SATA\r\n\tSubsystem: x\r\n"
        + lines[0]
        + "\r\n\tnoise: 12\r\n"
        + "\r\n".join(lines[1:])
    )
    assert configs(text) == {"0000:00:1f.2": ONE}


def test_functions_come_in_bus_order() -> None:
    assert list(configs(dump(("01:00.0", ONE), ("00:1f.2", ONE), ("0001:00:00.0", ONE)))) == [
        "0000:00:1f.2",
        "0000:01:00.0",
        "0001:00:00.0",
    ]


def test_the_first_of_two_descriptions_counts_and_is_noted() -> None:
    found = read_lspci(dump(("00:1f.2", ONE), ("00:1f.2", header(device=0x1234))), "dump")
    assert found.functions[0].config == ONE
    assert "0000:00:1f.2: described more than once; the first one counts" in found.notes


def test_a_short_dump_is_filled_with_zero_and_noted() -> None:
    found = read_lspci(dump(("00:1f.2", ONE + b"\x01" * 32)), "dump")
    assert found.functions[0].config == ONE + b"\x01" * 32 + bytes(160)
    assert found.notes == ("0000:00:1f.2: only 96 bytes are known; the rest is taken to be zero",)


def test_a_function_that_answered_with_ones_is_rebuilt_from_its_headline() -> None:
    text = "01:00.0 VGA compatible controller [0300]: NVIDIA [10de:0dee] (rev ff)\n" + hex_lines(b"\xff" * 64)
    found = read_lspci(text, "dump")
    assert found.functions[0].config[:4] == bytes.fromhex("de10ee0d")
    assert "0000:01:00.0: answered with all ones when it was read (no power, or gone)" in found.notes


def test_groups_are_kept_apart() -> None:
    text = "00:01.0 PCI\n\tIOMMU group: 7\n" + hex_lines(ONE) + "00:02.0 PCI\n" + hex_lines(ONE)
    found = read_lspci(text, "dump")
    assert (found.recorded_groups, found.recorded_ungrouped) == ((("0000:00:01.0",),), ("0000:00:02.0",))


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        ("00:1f.2 x\n00: 86 8\n", "line 2", "16 bytes in hex after `00:`"),
        ("00:1f.2 x\n00: zz" + " 00" * 15, "line 2", "16 bytes in hex after `00:`"),
        ("00:1f.2 x\n10:" + " 00" * 16, "line 2", "the bytes of 0000:00:1f.2 from 00 on, found 10"),
        ("00:1f.2 x\n00:" + " 00" * 16 + "\n20:" + " 00" * 16, "line 3", "from 10 on, found 20"),
        ("00:1f.2 x\n00:" + " 00" * 16, "line 1", "at least 64 bytes of 0000:00:1f.2, found 16"),
        ("00:" + " 00" * 16, "line 1", "the line naming the function before its hex bytes"),
        ("nothing at all", "", "lspci output"),
    ],
)
def test_a_bad_line_is_named(text: str, place: str, expected: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_lspci(text, "dump")
    assert caught.value.place == place
    assert expected in caught.value.expected


functions = st.dictionaries(
    st.builds(Bdf, st.integers(0, 0x10FFF), st.integers(0, 255), st.integers(0, 31), st.integers(0, 7)),
    st.sampled_from([64, 256, 4096]).flatmap(lambda size: st.binary(min_size=size, max_size=size)),
    min_size=1,
    max_size=3,
)


@steady
@given(functions)
def test_what_is_written_reads_back(known: dict[Bdf, bytes]) -> None:
    known = {bdf: b"\0" + data[1:] for bdf, data in known.items()}
    items = [FunctionDescription(bdf, data) for bdf, data in sorted(known.items())]
    assert list(read_lspci(write(items), "dump").functions) == items


@pytest.mark.skipif(shutil.which("lspci") is None, reason="lspci is not installed")
@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.json")), ids=lambda path: path.stem)
def test_lspci_itself_reads_what_is_written(path: Path, tmp_path: Path) -> None:
    text = write(read_machine(path).functions)
    (tmp_path / "dump").write_text(text)
    printed = subprocess.run(
        ["lspci", "-F", str(tmp_path / "dump"), "-n", "-D", "-xxxx"], capture_output=True, text=True, check=True
    ).stdout
    assert re.sub(r" \(.*\)", "", printed) == re.sub(r" \(.*\)", "", text)
