from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quiesce.snapshot.acpi import READERS, fields, read_table
from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.table import sealed
from snapshot.snapdata import needs_shared, shared, steady
from snapshot.tables import entry, madt, mcfg, viot, viot_node

SAMPLES = [
    madt(entry(1, bytes(10)), entry(7, bytes(20)), entry(0xFF, b"xyz")),
    mcfg((0xE0000000, 0, 0, 255)),
    viot(viot_node(3, bytes(12)), viot_node(1, bytes(20)), viot_node(7, b"abc")),
]


@pytest.mark.parametrize("data", SAMPLES)
def test_the_fields_are_the_whole_table(data: bytes) -> None:
    at = 0
    for field in fields(data):
        assert field.offset == at
        at += field.size
    assert at == len(data)


def test_a_table_that_says_nothing_about_devices() -> None:
    assert read_table(sealed(b"FACP", bytes(8))) is None


@needs_shared
@pytest.mark.slow
def test_the_fields_of_every_real_table_are_all_of_it() -> None:
    for path in shared("**/*.dat"):
        data = path.read_bytes()
        assert sum(field.size for field in fields(data, str(path))) == len(data)


bodies = st.one_of(
    st.binary(max_size=200),
    st.lists(st.builds(lambda k, b: bytes((k, 0, 4 + len(b), 0)) + b, st.integers(0, 255), st.binary(max_size=60))).map(
        b"".join
    ),
    st.lists(st.builds(lambda k, b: bytes((k, 2 + len(b))) + b, st.integers(0, 255), st.binary(max_size=60))).map(
        b"".join
    ),
    st.lists(
        st.builds(
            lambda k, b: bytes((k, 16 + len(b), 0, 1)) + b, st.integers(0, 7), st.binary(min_size=12, max_size=80)
        )
    ).map(lambda nodes: len(nodes).to_bytes(4, "little") + b"\x30\0\0\0\0\0\0\0" + b"".join(nodes)),
)


@steady
@given(st.sampled_from(sorted(READERS)), bodies)
def test_no_table_breaks_its_reader(signature: str, body: bytes) -> None:
    data = sealed(signature.encode(), bytes(12 if signature != "IORT" else 0) + body)
    with suppress(BadInput):
        assert read_table(data) is not None
        assert sum(field.size for field in fields(data)) >= len(data)
