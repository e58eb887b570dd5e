"""Reads real machines (lspci text and hex, recordings, ACPI tables) and descriptions; writes lspci -xxxx back."""

from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import FunctionDescription, MachineDescription, Route
from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.read import read_machine

__all__ = ["BadInput", "Bdf", "FunctionDescription", "MachineDescription", "Route", "read_machine"]
