from __future__ import annotations

from errno import EAGAIN, EBUSY, EIO, ENODEV, ENXIO

import pytest
from toykernel import AHCI, E1000E, SMALL, Toy, another_task, device, refuse, rules, texts

from quiesce.kernel import base_dd, changes, devres, iommu, pci_driver
from quiesce.kernel.base_core import EPROBE_DEFER
from quiesce.kernel.driver import DeviceId
from quiesce.kernel.kernel import Blocked

STRIPES = ("v3.6", "v4.1", "v4.3", "v4.4", "v4.5", "v5.3", "v5.10", "v6.1", "v6.11", "v6.12", "v6.14", "v7.3")
BDF = "0000:00:02.0"


def about(notified, bdf=BDF):
    return [line.replace(f" {bdf}", "") for line in notified if bdf in line]


@pytest.fixture
def idle(boot):
    """``idle(version, *drivers)``: booted, the drivers known but bound to nothing, their registration on record."""

    def make(version, *drivers, **options):
        k = boot(version, SMALL, *drivers, load=(), **options)
        for driver in drivers:
            k.system.loaded.add(driver.name)
        return k

    return make


# -- the order of a bind and an unbind ---------------------------------------------------------------------------


@pytest.mark.parametrize("version", STRIPES)
def test_listeners_hear_of_a_bind_and_an_unbind(idle, notified, version):
    k = idle(version, Toy())
    notified.clear()
    dev = device(k, "00:02.0")
    assert base_dd.device_driver_attach(k, "toy", dev) == 0
    assert about(notified) == ["BIND_DRIVER toy", "BOUND_DRIVER toy"]
    notified.clear()
    base_dd.device_release_driver(k, dev)
    assert about(notified) == ["UNBIND_DRIVER toy", "UNBOUND_DRIVER -"]
    assert k.drivers["toy"].log == [f"probe {BDF}", f"remove {BDF}"]


@pytest.mark.parametrize("version", STRIPES)
def test_a_failed_probe_is_announced_since_v4_5(idle, notified, version):
    k = idle(version, Toy(answer=-EIO))
    notified.clear()
    base_dd.device_driver_attach(k, "toy", device(k, "00:02.0"))
    expected = ["BIND_DRIVER toy"]
    if k.has(changes.NOTIFY_DRIVER_NOT_BOUND):
        expected.append("DRIVER_NOT_BOUND toy")
    assert about(notified) == expected


def test_every_step_of_a_bind_in_order(idle, monkeypatch):
    steps = []
    k = idle("v6.12", Toy(on_probe=lambda k, dev: steps.append("probe")))
    dev = device(k, "00:02.0")
    watch(monkeypatch, k, steps)
    base_dd.device_driver_attach(k, "toy", dev)
    assert steps == ["dma claimed", "BIND_DRIVER", "probe", "window", "BOUND_DRIVER"]


def test_every_step_of_an_unbind_in_order(idle, monkeypatch):
    steps = []
    monkeypatch.setitem(devres.RELEASE, "memo", lambda k, dev, node: steps.append(f"devres of {dev.driver}"))
    k = idle(
        "v6.12",
        Toy(
            on_probe=lambda k, dev: devres.devm_add_action(k, dev, "memo"),
            on_remove=lambda k, dev: steps.append("remove"),
        ),
    )
    dev = device(k, "00:02.0")
    base_dd.device_driver_attach(k, "toy", dev)
    watch(monkeypatch, k, steps)
    base_dd.device_release_driver(k, dev)
    assert steps == [
        "UNBIND_DRIVER",
        "remove",
        "window",
        "dma given back",
        "window",
        "devres of toy",
        "window",
        "UNBOUND_DRIVER",
    ]


def test_every_step_of_a_failed_probe_in_order(idle, monkeypatch):
    steps = []
    monkeypatch.setitem(devres.RELEASE, "memo", lambda k, dev, node: steps.append(f"devres of {dev.driver}"))

    def fail(k, dev):
        devres.devm_add_action(k, dev, "memo")
        return -EIO

    k = idle("v6.12", Toy(on_probe=fail))
    dev = device(k, "00:02.0")
    watch(monkeypatch, k, steps)
    base_dd.device_driver_attach(k, "toy", dev)
    assert steps == ["dma claimed", "BIND_DRIVER", "DRIVER_NOT_BOUND", "dma given back", "devres of toy"]
    assert (dev.driver, dev.pci_driver, dev.devres.as_tuple()) == (None, None, ())


def watch(monkeypatch, k, steps):
    """Record notifier calls, DMA claims and windows in ``steps``."""
    monkeypatch.setattr(base_dd, "bus_notify", lambda k, action, dev: steps.append(action))

    def claim(k, dev):
        steps.append("dma claimed")
        return 0

    monkeypatch.setattr(iommu, "iommu_device_use_default_domain", claim)
    monkeypatch.setattr(iommu, "iommu_device_unuse_default_domain", lambda k, dev: steps.append("dma given back"))
    k.nested = lambda where: steps.append("window")


def test_driver_data_is_forgotten_at_unbind_and_after_a_failed_probe(idle):
    def keep(k, dev):
        dev.drvdata["ring"] = 1
        return k.drivers["toy"].answer

    k = idle("v6.12", Toy(on_probe=keep))
    dev = device(k, "00:02.0")
    base_dd.device_driver_attach(k, "toy", dev)
    assert dev.drvdata["ring"] == 1
    base_dd.device_release_driver(k, dev)
    assert not dev.drvdata
    k.drivers["toy"].answer = -EIO
    base_dd.device_driver_attach(k, "toy", dev)
    assert not dev.drvdata


def test_a_claim_that_fails_ends_the_probe_before_anybody_is_told(idle, notified, monkeypatch):
    k = idle("v6.12", Toy())
    dev = device(k, "00:02.0")
    monkeypatch.setattr(iommu, "iommu_device_use_default_domain", lambda k, dev: -EBUSY)
    notified.clear()
    assert base_dd.device_driver_attach(k, "toy", dev) == -EBUSY
    assert (about(notified), dev.driver, k.drivers["toy"].log, texts(k)) == ([], None, [], [])


# -- devres left over --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", STRIPES)
def test_devres_left_over_is_found_at_the_next_probe(idle, monkeypatch, version):
    monkeypatch.setitem(devres.RELEASE, "memo", lambda k, dev, node: None)
    k = idle(version, Toy())
    dev = device(k, "00:02.0")
    devres.devm_add_action(k, dev, "memo")
    answer = base_dd.device_driver_attach(k, "toy", dev)
    assert rules(k) == ["devres/leftover-at-probe"]
    if k.has(changes.PROBE_REFUSES_LEFTOVER_DEVRES):
        assert (answer, dev.driver) == (-EBUSY, None)
        assert texts(k, "crit") == [f"pci {BDF}: Resources present before probing"]
        assert len(dev.devres) == 1
    else:
        assert (answer, dev.driver) == (0, "toy")
        assert texts(k, "WARN") == ["WARNING: drivers/base/dd.c: really_probe"]


def test_a_device_that_is_clean_is_not_suspected(idle):
    k = idle("v6.12", Toy())
    dev = device(k, "00:02.0")
    for _ in range(2):
        assert base_dd.device_driver_attach(k, "toy", dev) == 0
        base_dd.device_release_driver(k, dev)
    assert rules(k) == []


# -- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "level", "text"),
    [
        ("v6.8", "warn", f"toy: probe of {BDF} failed with error -5"),
        ("v6.9", "err", f"toy {BDF}: probe with driver toy failed with error -5"),
    ],
)
def test_how_a_failed_probe_is_printed(idle, version, level, text):
    k = idle(version, Toy(answer=-EIO))
    base_dd.device_driver_attach(k, "toy", device(k, "00:02.0"))
    assert texts(k, level) == [text]


@pytest.mark.parametrize("error", [-ENODEV, -ENXIO, -EPROBE_DEFER])
def test_a_refusal_or_a_deferral_is_not_printed(idle, error):
    k = idle("v6.12", Toy(answer=error))
    base_dd.device_driver_attach(k, "toy", device(k, "00:02.0"))
    assert texts(k) == []


@pytest.mark.parametrize(
    ("version", "error", "answer"),
    [
        ("v5.13", -EIO, -ENODEV),
        ("v5.13", -EPROBE_DEFER, -ENODEV),
        ("v5.14", -EIO, -EIO),
        ("v5.14", -EPROBE_DEFER, -EAGAIN),
        ("v5.14", 0, 0),
        ("v5.13", 0, 0),
    ],
)
def test_what_binding_by_hand_returns(idle, version, error, answer):
    k = idle(version, Toy(answer=error))
    assert base_dd.device_driver_attach(k, "toy", device(k, "00:02.0")) == answer


def test_binding_a_device_that_is_bound_or_gone(idle):
    k = idle("v6.12", Toy(), Toy("other"))
    dev = device(k, "00:02.0")
    assert base_dd.device_driver_attach(k, "toy", dev) == 0
    assert base_dd.device_driver_attach(k, "other", dev) == -EBUSY
    base_dd.device_release_driver(k, dev)
    dev.dead = True
    assert base_dd.device_driver_attach(k, "toy", dev) == -ENODEV


# -- devices and drivers find each other -------------------------------------------------------------------------


def test_a_new_driver_is_offered_every_device_without_a_driver(boot):
    k = boot("v6.12", SMALL, Toy("disk", ids=AHCI), Toy("any"))
    assert [dev.driver for dev in k.system.devices] == ["any", "any", "disk", "any", "any", "any"]
    assert k.drivers["disk"].log == [f"probe {BDF}"]
    assert f"probe {BDF}" not in k.drivers["any"].log


def test_a_driver_registers_once(boot):
    k = boot("v6.12", SMALL, Toy())
    assert base_dd.driver_register(k, "toy") == -EBUSY
    assert texts(k, "err") == ["Error: Driver 'toy' is already registered, aborting..."]


def test_unregistering_unbinds_last_to_first_and_nothing_binds_again(boot):
    k = boot("v6.12", SMALL, Toy("net", ids=E1000E))
    base_dd.driver_unregister(k, "net")
    log = k.drivers["net"].log
    assert log[2:] == ["remove 0000:01:00.1", "remove 0000:01:00.0"]
    assert not any(dev.driver for dev in k.system.devices)
    assert not base_dd.device_attach(k, device(k, "01:00.0"))
    assert base_dd.driver_register(k, "net") == 0
    assert device(k, "01:00.0").driver == "net"


def test_a_device_is_tried_with_driver_after_driver(idle):
    k = idle("v6.12", Toy("first", answer=-EIO), Toy("second", on_probe=refuse), Toy("third"), Toy("fourth"))
    dev = device(k, "00:02.0")
    assert base_dd.device_attach(k, dev)
    assert dev.driver == "third"
    assert [len(driver.log) for driver in k.drivers.values()] == [1, 1, 1, 0]
    assert base_dd.device_attach(k, dev)


def test_an_error_of_the_core_ends_the_search(idle, monkeypatch):
    monkeypatch.setitem(devres.RELEASE, "memo", lambda k, dev, node: None)
    k = idle("v6.12", Toy("first"), Toy("second"))
    dev = device(k, "00:02.0")
    devres.devm_add_action(k, dev, "memo")
    assert not base_dd.device_attach(k, dev)
    assert texts(k) == [f"pci {BDF}: Resources present before probing"]


def test_a_dead_device_gets_no_driver(idle):
    k = idle("v6.12", Toy())
    dev = device(k, "00:02.0")
    dev.dead = True
    assert not base_dd.device_attach(k, dev)
    dev.dead = False
    assert base_dd.device_attach(k, dev)


def test_nothing_fits_a_device_that_may_not_be_matched(idle):
    k = idle("v6.12", Toy())
    dev = device(k, "00:02.0")
    dev.match_driver = False
    assert not base_dd.device_attach(k, dev)
    dev.match_driver = True
    assert base_dd.device_attach(k, dev)


# -- deferral ----------------------------------------------------------------------------------------------------


def test_a_deferred_device_is_tried_again_when_another_binds(boot):
    ready = []
    waiter = Toy("waiter", ids=AHCI, on_probe=lambda k, dev: 0 if ready else -EPROBE_DEFER)
    provider = Toy("provider", ids=E1000E, on_probe=lambda k, dev: ready.append(dev))
    k = boot("v6.12", SMALL, waiter, provider, load=["waiter"])
    dev = device(k, "00:02.0")
    assert (dev.driver, dev.deferred) == (None, True)
    assert waiter.log == [f"probe {BDF}"] * 2
    base_dd.driver_register(k, "provider")
    assert (dev.driver, dev.deferred, k.system.deferred_work) == ("waiter", False, False)


def test_a_device_that_defers_again_waits_and_does_not_spin(boot):
    k = boot("v6.12", SMALL, Toy("waiter", ids=AHCI, answer=-EPROBE_DEFER), Toy("net", ids=E1000E))
    dev = device(k, "00:02.0")
    assert dev.deferred
    assert not k.system.deferred_work
    tries = len(k.drivers["waiter"].log)
    base_dd.device_release_driver(k, device(k, "01:00.0"))
    base_dd.device_driver_attach(k, "net", device(k, "01:00.0"))
    assert len(k.drivers["waiter"].log) == tries + 1


def test_the_device_that_waits_longest_is_tried_first(boot):
    k = boot("v6.12", SMALL, Toy(answer=-EPROBE_DEFER), load=())
    k.system.loaded.add("toy")
    log = k.drivers["toy"].log
    for bdf in ("00:03.0", "00:02.0"):
        base_dd.device_attach(k, device(k, bdf))
    log.clear()
    base_dd.driver_deferred_probe_trigger(k)
    assert log == ["probe 0000:00:03.0", f"probe {BDF}"]
    assert [dev.bdf for dev in k.system.deferred_probes] == ["0000:00:03.0", BDF]


def test_a_device_that_goes_waits_no_more(boot):
    from quiesce.kernel import pci_remove

    k = boot("v6.12", SMALL, Toy(ids=AHCI, answer=-EPROBE_DEFER))
    assert len(k.system.deferred_probes) == 1
    pci_remove.pci_stop_and_remove_bus_device(k, device(k, "00:02.0"))
    assert len(k.system.deferred_probes) == 0


def test_the_worker_waits_for_device_locks(boot):
    ready = []
    waiter = Toy("waiter", ids=AHCI, on_probe=lambda k, dev: 0 if ready else -EPROBE_DEFER)
    k = boot("v6.12", SMALL, waiter, Toy("net", ids=E1000E), load=["waiter"])
    ready.append(1)
    k.system.loaded.add("net")
    with another_task(k, f"device_lock {BDF}"):
        base_dd.device_driver_attach(k, "net", device(k, "01:00.0"))
        assert k.system.deferred_work
    base_dd.deferred_probe_work(k)
    assert device(k, "00:02.0").driver == "waiter"


def test_probing_can_be_blocked(idle):
    k = idle("v6.12", Toy())
    dev = device(k, "00:02.0")
    k.system.defer_all_probes = True
    assert base_dd.device_driver_attach(k, "toy", dev) == -EAGAIN
    assert (dev.driver, dev.deferred) == (None, True)
    from quiesce.kernel.base_core import device_unblock_probing

    device_unblock_probing(k)
    assert (dev.driver, dev.deferred) == ("toy", False)


# -- locks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", [base_dd.device_release_driver, base_dd.device_attach])
def test_binding_and_unbinding_wait_for_the_device_lock(idle, operation):
    k = idle("v6.12", Toy())
    dev = device(k, "00:02.0")
    with another_task(k, f"device_lock {BDF}"), pytest.raises(Blocked, match="device_lock"):
        operation(k, dev)
    operation(k, dev)


def test_callbacks_run_under_the_device_lock(idle):
    held = []
    k = idle(
        "v6.12",
        Toy(
            on_probe=lambda k, dev: held.append(tuple(k.mutexes)),
            on_remove=lambda k, dev: held.append(tuple(k.mutexes)),
        ),
    )
    dev = device(k, "00:02.0")
    base_dd.device_driver_attach(k, "toy", dev)
    base_dd.device_release_driver(k, dev)
    assert held == [(f"device_lock {BDF}",)] * 2
    assert k.mutexes == []


def test_windows_name_the_device_and_the_moment(idle, windows):
    k = idle("v6.12", Toy())
    dev = device(k, "00:02.0")
    seen = windows(k)
    base_dd.device_driver_attach(k, "toy", dev)
    base_dd.device_release_driver(k, dev)
    assert seen == [
        f"really_probe {BDF}: probed, not yet bound",
        f"unbind {BDF}: driver removed, its devres still there",
        f"unbind {BDF}: DMA given back, devres still there",
        f"unbind {BDF}: driver forgotten, listeners not yet told",
    ]


def test_there_is_no_dma_window_where_there_is_no_dma_cleanup(idle, windows):
    k = idle("v5.18", Toy())
    dev = device(k, "00:02.0")
    base_dd.device_driver_attach(k, "toy", dev)
    seen = windows(k)
    base_dd.device_release_driver(k, dev)
    assert not any("DMA" in where for where in seen)
    assert len(seen) == 2


def test_unbinding_a_device_without_a_driver_does_nothing(idle, notified):
    k = idle("v6.12", Toy())
    notified.clear()
    base_dd.device_release_driver(k, device(k, "00:02.0"))
    base_dd.device_driver_detach(k, "toy", device(k, "00:02.0"))
    assert notified == []


def test_only_its_own_driver_can_be_detached(idle):
    k = idle("v6.12", Toy(), Toy("other", ids=(DeviceId(1, 1),)))
    dev = device(k, "00:02.0")
    base_dd.device_driver_attach(k, "toy", dev)
    base_dd.device_driver_detach(k, "other", dev)
    assert dev.driver == "toy"
    base_dd.device_driver_detach(k, "toy", dev)
    assert dev.driver is None
    assert pci_driver.pci_bus_match(k, "toy", dev)
