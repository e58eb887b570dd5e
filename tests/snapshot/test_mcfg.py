from quiesce.snapshot.mcfg import Window, read_mcfg
from quiesce.snapshot.table import sealed
from snapshot.tables import mcfg


def test_the_window_of_a_bus() -> None:
    table = read_mcfg(mcfg((0xE0000000, 0, 0, 0x7F), (0xF0000000, 1, 0, 0xFF)))
    assert table.window_of(0, 0x7F) == Window(0, 0, 0x7F, 0xE0000000)
    assert table.window_of(0, 0x80) is None
    assert table.window_of(1, 0x80) == Window(1, 0, 0xFF, 0xF0000000)
    assert table.notes == ()


def test_what_is_wrong_is_noted() -> None:
    assert read_mcfg(mcfg((0, 0, 5, 4))).notes == ("offset 0x2c: a window whose first bus is behind its last one",)
    assert read_mcfg(sealed(b"MCFG", bytes(13))).notes == ("offset 0x2c: 5 bytes at the end are no window",)
