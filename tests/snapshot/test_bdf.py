import pytest
from hypothesis import given
from hypothesis import strategies as st

from quiesce.snapshot.bdf import Bdf
from snapshot.snapdata import steady

bdfs = st.builds(Bdf, st.integers(0, 0xFFFFF), st.integers(0, 255), st.integers(0, 31), st.integers(0, 7))


def test_reads_the_full_and_the_short_form() -> None:
    assert Bdf.parse("0000:00:1f.2") == Bdf.parse("00:1f.2") == Bdf(0, 0, 0x1F, 2)


def test_reads_a_vmd_segment() -> None:
    assert Bdf.parse("10000:e0:06.0") == Bdf(0x10000, 0xE0, 6, 0)


def test_prints_the_kernel_form() -> None:
    assert (str(Bdf(0, 3, 0x1F, 7)), Bdf(0, 3, 0x1F, 7).short) == ("0000:03:1f.7", "03:1f.7")


def test_devfn_and_requester_id() -> None:
    assert (Bdf.parse("03:1f.7").devfn, Bdf.parse("03:1f.7").requester_id) == (0xFF, 0x03FF)


def test_sorts_in_bus_order() -> None:
    assert sorted(map(Bdf.parse, ("01:00.0", "00:1f.2", "00:02.0"))) == [
        Bdf(0, 0, 2, 0),
        Bdf(0, 0, 0x1F, 2),
        Bdf(0, 1, 0, 0),
    ]


@pytest.mark.parametrize("text", ["", "1f.2", "00:1f", "00:20.0", "00:1f.8", "00:1f.2x", "000:00:1f.2", "g0:00.0"])
def test_refuses_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"address|device number"):
        Bdf.parse(text)


@steady
@given(bdfs)
def test_printing_and_parsing_are_inverse(bdf: Bdf) -> None:
    assert Bdf.parse(str(bdf)) == bdf


@steady
@given(bdfs)
def test_requester_id_gives_the_address_back(bdf: Bdf) -> None:
    assert Bdf.from_devid(bdf.requester_id, bdf.segment) == bdf
