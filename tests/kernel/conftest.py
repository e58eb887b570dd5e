"""Fixtures for kernel tests; the helpers they build on are in ``toykernel.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from toykernel import SMALL, make_kernel

from quiesce.kernel import boot as kernel_boot
from quiesce.kernel import notifier
from quiesce.kernel.driver import PciDriver
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PciDev


@pytest.fixture
def boot() -> Callable[..., Kernel]:
    """``boot(version, machine, *drivers, load=..., changed=...)``: a booted kernel with fresh outputs.

    All drivers given are registered unless ``load`` names those that are.
    """

    def booted(
        version: str,
        machine: str = SMALL,
        *drivers: PciDriver,
        load: Iterable[str] | None = None,
        changed: Iterable[str] = (),
    ) -> Kernel:
        k = make_kernel(version, machine, *drivers, changed=changed)
        kernel_boot.boot(k, [d.name for d in drivers] if load is None else list(load))
        k.start_event()
        return k

    return booted


@pytest.fixture
def notified(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record what bus listeners are told, after the real ones: ``BIND_DRIVER 0000:01:00.0 toy``."""
    seen: list[str] = []
    real = notifier.listeners

    def record(k: Kernel, action: str, dev: PciDev) -> None:
        seen.append(f"{action} {dev.bdf} {dev.driver or '-'}")

    monkeypatch.setattr(notifier, "listeners", lambda: (*real(), record))
    return seen


@pytest.fixture
def windows() -> Callable[[Kernel], list[str]]:
    """Record the windows that a kernel opens from now on."""

    def watch(k: Kernel) -> list[str]:
        seen: list[str] = []
        k.nested = seen.append
        return seen

    return watch
