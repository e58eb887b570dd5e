import shutil
import subprocess
from pathlib import Path

import pytest

from quiesce.snapshot.acpi import READERS, signature_of
from quiesce.snapshot.acpi_listing import Comparison, compare_with_listing, read_listing
from quiesce.snapshot.acpidump import read_acpi
from snapshot.snapdata import needs_shared, shared
from snapshot.tables import mcfg

MCFG = mcfg((0xB0000000, 0, 0, 255))
LISTING = """
[000h 0000   4]                    Signature : "MCFG"    [Memory Mapped Configuration table]
[004h 0004 004h]                Table Length : 0000003C
[02Ch 0044 008h]                Base Address : 00000000B0000000
[034h 0052 002h]         Segment Group Number : 0000
[036h 0054   1]             Start Bus Number : 00
[037h 0055   1]               End Bus Number : FF
[038h 0056   4]                     Reserved : 00000000

Raw Table Data: Length 60 (0x3C)
[038h 0056   4]                     Reserved : 00000001
"""


def test_a_listing_that_agrees() -> None:
    found = compare_with_listing(MCFG, LISTING)
    assert (found.compared, found.differences, found.mistaken) == (7, (), 0)
    assert [item.name for item in found.unlisted][:2] == ["revision", "checksum"]


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        ("End Bus Number : FF", "End Bus Number : FE", "value of End Bus Number"),
        ("Start Bus Number : 00", "End Bus Number : 00", "name"),
        ("[034h 0052 002h]", "[034h 0052 001h]", "place"),
        ('"MCFG"', '"MCFH"', "value of Signature"),
        ("End Bus Number : FF", "End Bus Number : FF\n                     Polarity : 1", "bits"),
        ("Reserved : 00000000", "Reserved : ????", "value of Reserved"),
    ],
)
def test_a_listing_that_differs(before: str, after: str, what: str) -> None:
    found = compare_with_listing(MCFG, LISTING.replace(before, after))
    assert [item.what for item in found.differences] == [what]


def test_values_over_several_lines() -> None:
    text = "[3E7h 0999  22]   Padding : \\\n    00 01 02 03 \\\n    04 05 \n"
    assert read_listing(text)[0].value == "00 01 02 03 04 05"
    text = "[3E7h 0999 016h]  Padding : 49 4F /* IO */\\\n/* 3F7h 1015   6 */     51 43      /* QC */\\\n"
    assert read_listing(text)[0].value == "49 4F 51 43"


# -- over all real tables ----------------------------------------------------------------------------------------


@needs_shared
@pytest.mark.slow
def test_every_listing_of_the_corpus_agrees() -> None:
    found = [compared(path) for path in shared("**/*.dsl")]
    assert len(found) == 294
    assert sum(item.compared for item in found) == 47961
    assert [item.differences for item in found if item.differences] == []
    assert sum(item.mistaken for item in found) == 85
    quiet = {(item.structure, item.name) for one in found if not one.gave_up for item in one.unlisted}
    assert quiet == {("named component", "padding"), ("", "unread"), ("entry", "uid format"), ("entry", "uid length")}
    assert sum(item.gave_up for item in found) == 5


def compared(path: Path) -> Comparison:
    text = path.read_text("latin-1")
    signature = text.split("ACPI Data Table [")[1][:4]
    source = next(item for item in (path.with_suffix(".dat"), path.with_suffix(".acpidump.txt")) if item.is_file())
    table = read_acpi(source.read_bytes(), str(source)).first(signature)
    assert table is not None
    return compare_with_listing(table, text)


@needs_shared
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("iasl") is None, reason="iasl (acpica-tools) is not installed")
def test_every_table_agrees_with_iasl(tmp_path: Path) -> None:
    tables = sorted(
        {
            table
            for path in shared("**/*.dat", "**/*.acpidump.txt")
            for signature, found in read_acpi(path.read_bytes(), str(path)).tables.items()
            if signature in READERS
            for table in found
        }
    )
    assert len(tables) > 600
    for text, table in zip(disassembled(tables, tmp_path), tables, strict=True):
        found = compare_with_listing(table, text)
        assert found.differences == ()
        assert found.compared >= 15 or signature_of(table) == "VIOT"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("iasl") is None, reason="iasl (acpica-tools) is not installed")
def test_the_templates_of_iasl_agree(tmp_path: Path) -> None:
    """They have every structure that iasl knows."""
    for signature in ("APIC", "DMAR", "IORT", "IVRS", "MCFG"):
        subprocess.run(["iasl", "-T", signature], cwd=tmp_path, check=True, capture_output=True)
        subprocess.run(["iasl", f"{signature.lower()}.asl"], cwd=tmp_path, check=True, capture_output=True)
        table = (tmp_path / f"{signature.lower()}.aml").read_bytes()
        (text,) = disassembled([table], tmp_path)
        found = compare_with_listing(table, text)
        assert found.differences == ()
        assert found.compared >= 15


def disassembled(tables: list[bytes], folder: Path) -> list[str]:
    for number, table in enumerate(tables):
        (folder / f"t{number}.dat").write_bytes(table)
    names = [f"t{number}.dat" for number in range(len(tables))]
    subprocess.run(["iasl", "-d", *names], cwd=folder, check=True, capture_output=True)
    return [(folder / name).with_suffix(".dsl").read_text("latin-1") for name in names]
