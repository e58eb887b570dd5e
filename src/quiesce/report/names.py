"""A function in a few words."""

from __future__ import annotations

from quiesce.snapshot.description import FunctionDescription


def describe(item: FunctionDescription) -> str:
    """Return class, ids and driver of a function."""
    config = item.config
    ids = ":".join(f"{int.from_bytes(config[at : at + 2], 'little'):04x}" for at in (0, 2))
    stated = item.attributes.get("vendor"), item.attributes.get("device")
    text = f"[{config[0x0B]:02x}{config[0x0A]:02x}] {':'.join(stated) if all(stated) else ids}"  # type: ignore[arg-type]
    name, driver = item.attributes.get("name", ""), item.attributes.get("driver", "")
    return "  ".join(part for part in (text, name, f"({driver})" if driver else "") if part)
