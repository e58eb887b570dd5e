"""The error for bad input."""

import pickle

from quiesce.snapshot.errors import BadInput


def test_it_survives_the_way_out_of_a_worker_process() -> None:
    error = pickle.loads(pickle.dumps(BadInput("a.case", "line 3", "a kernel")))
    assert str(error) == "a.case: line 3: expected a kernel"
    assert (error.file, error.place, error.expected) == ("a.case", "line 3", "a kernel")
