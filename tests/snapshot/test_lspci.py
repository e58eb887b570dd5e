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
from quiesce.snapshot.read import read_machine, read_text
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


def test_the_first_of_two_dumps_counts_and_what_differs_is_noted() -> None:
    found = read_lspci(dump(("00:1f.2", ONE), ("00:1f.2", header(device=0x1234))), "dump")
    assert found.functions[0].config == ONE
    assert "0000:00:1f.2: ids are stated twice and differently; line 1 counts" in found.notes


def test_a_longer_dump_of_the_same_function_counts_more() -> None:
    long = header(size=256)[:-1] + b"\x01"
    found = read_lspci(dump(("00:1f.2", ONE), ("00:1f.2", long)), "dump")
    assert (found.functions[0].config, found.notes) == (long, ())


def test_what_a_short_dump_leaves_out_is_unknown_and_noted() -> None:
    item = read_lspci(dump(("00:1f.2", ONE + b"\x01" * 32)), "dump").functions[0]
    assert item.config == ONE + b"\x01" * 32 + bytes(160)
    assert item.known == b"\xff" * 96 + bytes(160)


def test_the_size_of_a_short_dump_is_noted() -> None:
    notes = read_lspci(dump(("00:1f.2", ONE + b"\x01" * 32)), "dump").notes
    assert "0000:00:1f.2: only 96 bytes are known; the rest is unknown" in notes


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
    ("lines", "known", "note"),
    [
        ("00: 86 8\n", b"\xff", "line 2: not 16 bytes in hex; what is missing is unknown"),
        ("00: zz" + " 00" * 15, b"", "line 2: not 16 bytes in hex; what is missing is unknown"),
        ("10:" + " 00" * 16, bytes(16) + b"\xff" * 16, "bytes 00-0f are missing in the dump; they are unknown"),
        (
            "00:" + " 00" * 16 + "\n20:" + " 00" * 16,
            b"\xff" * 16 + bytes(16) + b"\xff" * 16,
            "bytes 10-1f are missing in the dump; they are unknown",
        ),
    ],
)
def test_damaged_bytes_are_unknown_and_noted(lines: str, known: bytes, note: str) -> None:
    found = read_lspci(f"00:1f.2 SATA controller: Somebody Something\n{lines}", "dump")
    masks = found.functions[0].known
    assert masks is not None
    assert [mask for mask, shown in zip(masks, known, strict=False) if shown] == [0xFF for shown in known if shown]
    assert any(note in item for item in found.notes)


@pytest.mark.parametrize("text", ["nothing at all", "00:" + " 00" * 16, "10:15.3 is a time", "", "\n" * 1000])
def test_text_without_a_function_is_bad_input(text: str) -> None:
    with pytest.raises(BadInput, match="lspci output"):
        read_lspci(text, "dump")


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
    assert _bytes_of(printed) == _bytes_of(text)


@pytest.mark.skipif(shutil.which("lspci") is None, reason="lspci is not installed")
@pytest.mark.parametrize("size", [64, 256, 4096])
@pytest.mark.parametrize("first", [b"\x86\x80", b"\xff"])
def test_lspci_itself_reads_any_size_and_domain(size: int, first: bytes, tmp_path: Path) -> None:
    data = (first * size)[:size]
    bdfs = [Bdf.parse(text) for text in ("0000:00:00.0", "0001:ff:1f.7", "10000:e1:00.0")]
    text = write([FunctionDescription(bdf, data) for bdf in bdfs])
    (tmp_path / "dump").write_text(text)
    printed = subprocess.run(
        ["lspci", "-F", str(tmp_path / "dump"), "-n", "-D", "-xxxx"], capture_output=True, text=True, check=True
    ).stdout
    assert _bytes_of(printed) == _bytes_of(text)


def _bytes_of(printed: str) -> str:
    """Leave out what lspci says about a function besides its bytes: of a virtual function it does not know the ids."""
    return re.sub(r"^(\S+\.[0-7]) .*", r"\1", printed, flags=re.MULTILINE)


def test_a_byte_that_is_none_in_an_otherwise_perfect_dump() -> None:
    """The fast way through a whole dump gives up on it, and the line is noted."""
    text = write(read_text("machine m\n00:01.0 root-port bus=01\n", "m").functions)
    found = read_lspci(text.replace("30: 00 00", "30: 00 0h", 1), "dump")
    assert found.functions[0].known is not None
    assert not found.functions[0].known[0x31]
