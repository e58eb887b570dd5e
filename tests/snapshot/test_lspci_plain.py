"""Dumps exactly as lspci prints them, against the general way through the same text."""

from hypothesis import given
from hypothesis import strategies as st

from quiesce.snapshot.lspci import read_lspci, write
from quiesce.snapshot.lspci_plain import read_plain
from quiesce.snapshot.read import read_text
from snapshot.snapdata import dump, header, needs_shared, shared, steady

PAIR = "\n".join(
    f"{place} {words}\n{dump(('x', header(size=size))).partition(chr(10))[2]}"
    for place, words, size in (
        ("0000:00:1f.2", "0106: 8086:2922 (rev 02) (prog-if 01)", 4096),
        ("01:00.0", "SATA controller: Intel Corporation 82801IR [AHCI] (rev 02)", 256),
        ("10000:01:00.1", "PCI bridge: Maker PCI Express Root Port #1", 256),
    )
)


def both(text: str) -> None:
    """The short way gives what the general one gives."""
    assert read_plain(text.encode(), "f", "n") == read_lspci(text, "f", "n")


def test_both_ways_give_the_same() -> None:
    both(PAIR)
    both(PAIR.rstrip("\n") + "\n\n")
    both(write(read_text("machine m\n00:01.0 root-port bus=01\n01:00.0 nvme\n", "m").functions))


@given(st.integers(0, len(PAIR) - 1), st.binary(min_size=1, max_size=3) | st.sampled_from([b"", b"\n", b"\n\n", b" "]))
@steady
def test_whatever_is_changed_the_short_way_gives_the_same_or_gives_up(at: int, put: bytes) -> None:
    data = PAIR.encode()
    for end in (at, at + len(put), at + 1):
        changed = data[:at] + put + data[end:]
        found = read_plain(changed, "f", "n")
        assert found is None or found == read_lspci(changed.decode("utf-8", "replace"), "f", "n")


def test_what_takes_a_note_goes_the_general_way() -> None:
    assert read_plain(dump(("00:1f.2", header())).encode(), "f", "n") is None
    assert read_plain(dump(("00:1f.2", b"\xff" * 256)).encode(), "f", "n") is None
    assert read_plain(PAIR.replace("AHCI", "A&amp;B").encode(), "f", "n") is None
    assert read_plain((PAIR + PAIR).encode(), "f", "n") is None
    assert read_plain(b"", "f", "n") is None


@needs_shared
def test_real_dumps_both_ways() -> None:
    taken = 0
    for path in shared("**/*.txt", "**/*.lspci"):
        data = path.read_bytes()
        found = read_plain(data, "f", "n")
        if found is not None:
            taken += 1
            assert found == read_lspci(data.decode(), "f", "n"), path
    assert taken or not shared("**/*.txt")
