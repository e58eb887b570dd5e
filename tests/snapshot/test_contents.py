from pathlib import Path

import pytest

from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.contents import config_address, is_table
from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.ivrs import Ivrs, write_ivrs
from quiesce.snapshot.read import read_machine, read_sources, read_text
from snapshot.snapdata import dump, header

LOG = "[    0.311234] pci 0000:00:1f.2: [8086:2922] type 00 class 0x010601\n"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("0000-00-1f.2.config", Bdf(0, 0, 0x1F, 2)),
        ("0000:00:1f.2", Bdf(0, 0, 0x1F, 2)),
        ("00:1f.2.bin", Bdf(0, 0, 0x1F, 2)),
        ("0001-00-1f.2", Bdf(1, 0, 0x1F, 2)),
        ("lspci.txt", None),
        ("0000:00:ff.2", None),
    ],
)
def test_addresses_in_names_of_files(name: str, expected: Bdf | None) -> None:
    assert config_address(name) == expected


def test_raw_tables_are_known_by_their_checksum() -> None:
    table = write_ivrs(Ivrs(()))
    assert is_table(table)
    assert not is_table(table[:-1])
    assert not is_table(table[:8] + b"\1" + table[9:])
    assert not is_table(b"00:1f.2 SATA controller\n" * 10)


def test_a_mail_with_everything_in_it() -> None:
    rows = "".join(
        f"  {at:04X}: {write_ivrs(Ivrs(()))[at : at + 16].hex(' ').upper()}\n"
        for at in range(0, len(write_ivrs(Ivrs(()))), 16)
    )
    text = (
        "Hello,\n\n"
        + dump(("00:1f.2", header()))
        + "\nand the log:\n"
        + LOG
        + "[    0.4] pci 0000:00:1f.3: [8086:2930] type 00 class 0x0c0500\n"
        + "[    0.5] pci 0000:00:1f.2: Adding to iommu group 5\n"
        + "\nIVRS @ 0x0000000000000000\n"
        + rows
    )
    found = read_text(text, "mail")
    assert [str(item.bdf) for item in found.functions] == ["0000:00:1f.2", "0000:00:1f.3"]
    assert found.functions[0].config[:64] == header()
    assert found.ivrs is not None
    assert found.recorded_groups == (("0000:00:1f.2",),)


def test_a_command_line_that_a_text_shows() -> None:
    text = (
        "$ cat /proc/cmdline\nBOOT_IMAGE=/boot/vmlinuz-6.5.11-8-pve root=/dev/x ro intel_iommu=on\n"
        "00:1f.2 SATA controller [0106]: Intel [8086:2922]\n"
    )
    found = read_text(text, "t")
    assert found.kernel == "6.5.11-8-pve"
    assert found.cmdline is not None
    assert found.cmdline.endswith("intel_iommu=on")


def test_several_sources_make_one_machine(tmp_path: Path) -> None:
    (tmp_path / "l").write_text("00:1f.2 SATA controller [0106]: Intel [8086:2922]\n")
    (tmp_path / "d").write_text(LOG + "[    0.5] Linux version\n[ 0.6] Kernel command line: ro iommu=pt\n")
    (tmp_path / "t").write_bytes(write_ivrs(Ivrs(())))
    found = read_sources([tmp_path / "l", tmp_path / "d", tmp_path / "t"])
    assert (len(found.functions), found.cmdline, found.ivrs is not None) == (1, "ro iommu=pt", True)
    assert found.name == "l"


def test_tables_alone_are_no_machine(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(write_ivrs(Ivrs(())))
    with pytest.raises(BadInput, match="tables of a machine, but none of its functions"):
        read_machine(tmp_path / "t")


@pytest.mark.parametrize("data", [bytes(4096), b"\x7fELF" + bytes(100)])
def test_what_is_no_text_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(BadInput, match="these bytes are none of them"):
        read_machine(tmp_path / "x")


def test_text_in_utf_16(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(LOG.encode("utf-16"))
    assert len(read_machine(tmp_path / "x").functions) == 1
