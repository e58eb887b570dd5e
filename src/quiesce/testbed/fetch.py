"""Debian's kernels into the store."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quiesce.snapshot.errors import BadInput
from quiesce.testbed import apt, kernel_headers, module_files, store
from quiesce.testbed.bzimage import BzImage
from quiesce.testbed.errors import Skipped
from quiesce.testbed.images import KernelImage, full_name, image_of

RELEASE = r"(\.[0-9]+)*(-[0-9]+|\+deb[0-9]+(\+[0-9]+)?)?-amd64"
"""What follows the series in the release of an ordinary kernel: neither real-time nor cloud."""


SWITCHES = b"quiesce.bugs\0"
"""The name of the parameter that a kernel with switches has."""


@dataclass(frozen=True)
class Source:
    """Where a kernel comes from: the suite, and the series as a regular expression."""

    suite: str
    series: str
    security: bool = False


SOURCES = {
    "debian:5.10": Source("bullseye", r"5\.10"),
    "debian:6.1": Source("bookworm", r"6\.1", security=True),
    "debian:6.12": Source("trixie", r"6\.12"),
    "debian:newest": Source("sid", r"[0-9]+\.[0-9]+"),
}


def fetch(
    name: str,
    *,
    mirror: str | None = None,
    headers: bool = True,
    update: bool = False,
    say: store.Say = store.quiet,
) -> KernelImage:
    """Bring a Debian kernel into the store and return it; nothing is done when it is there already.

    ``update`` looks for a newer version. Raises Skipped with the reason when it cannot be had.
    """
    whole = checked_name(name)
    with store.locked(whole, say):
        record = store.manifest(whole)
        if record is None or update or not _complete(record, headers):
            record = _fetched(whole, mirror, headers, record, say)
        return image_of(record)


def checked_name(name: str) -> str:
    """Return the whole name of a kernel that can be fetched; raises BadInput for any other."""
    whole = full_name(name)
    if whole not in SOURCES:
        raise BadInput(repr(name), "", f"one of {', '.join(SOURCES)}")
    return whole


def _complete(record: dict[str, Any], headers: bool) -> bool:
    image = image_of(record)
    return image.vmlinux.is_file() and (image.headers is not None or not headers)


def _fetched(
    name: str, mirror: str | None, headers: bool, before: dict[str, Any] | None, say: store.Say
) -> dict[str, Any]:
    source = SOURCES[name]
    suite = apt.Suite(source.suite, mirror, security=source.security, say=lambda line: say(f"{name}: {line}"))
    suite.update()
    packages = image_packages(suite, source.series)
    version = packages[0].version
    if before and before["version"] == version and _complete(before, headers):
        say(f"{name}: {version} is the newest")
        return before
    with store.scratch(store.kernels_dir(), name) as work:
        parts = _download(suite, packages, work)
        made = store.made(work / "kernel")
        facts = assemble(parts, made)
        if headers:
            _headers(suite, facts["release"], work, made)
        facts |= {
            "package": f"{packages[0].name} {version}",
            "suite": source.suite,
            "packages": [str(package) for package in packages],
        }
        suite.say("checksums")
        return store.publish(name, version, made, facts)


def image_packages(suite: apt.Suite, series: str) -> list[apt.Package]:
    """Return the packages of the newest kernel of a series: one, or in newer suites three."""
    first = suite.newest(rf"linux-(image|binary)-{series}{RELEASE}")
    release = re.sub(r"^linux-(image|binary)-", "", first.name)
    split = [suite.find(f"linux-{part}-{release}") for part in ("binary", "modules", "base")]
    found = [package for package in split if package is not None]
    if len(found) == 3:
        return found
    image = suite.find(f"linux-image-{release}")
    if image is None:
        raise Skipped(f"the suite {suite.name} has no whole kernel {release}")
    return [image]


def _download(suite: apt.Suite, packages: list[apt.Package], work: Path) -> Path:
    size = sum(package.size for package in packages) / 1e6
    suite.say(f"{packages[0].name} {packages[0].version}, {size:.0f} MB")
    root = store.made(work / "root")
    for file in suite.download([package.name for package in packages], work / "debs"):
        apt.unpack(file, root)
        file.unlink()
    return root


def assemble(root: Path, made: Path) -> dict[str, Any]:
    """Take what is kept out of an unpacked kernel and return what the manifest says of it."""
    places = sorted([*root.glob("boot/vmlinuz-*"), *root.glob("usr/lib/modules/*/vmlinuz")])
    settings = sorted([*root.glob("boot/config-*"), *root.glob("usr/lib/modules/*/config")])
    if not places:
        raise Skipped("the package holds no kernel where it is expected")
    return keep_kernel(places[0], made, root, settings[0] if settings else None)


def keep_kernel(bzimage: Path, made: Path, modules: Path | None, config: Path | None) -> dict[str, Any]:
    """Put kernel, settings and modules into the folder of a kernel and return what the manifest says of them."""
    kernel = BzImage(bzimage.read_bytes(), str(bzimage))
    elf = kernel.vmlinux()
    (made / "vmlinux").write_bytes(elf)
    (made / "bzImage").write_bytes(kernel.data)
    if config is not None:
        (made / "config").write_bytes(config.read_bytes())
    return {
        "release": kernel.release,
        "banner": kernel.banner,
        "relocatable": kernel.relocatable,
        "switches": SWITCHES in elf,
        "modules": module_files.keep(modules, made / "modules") if modules else {},
        "builtin": module_files.builtin_names(modules) if modules else [],
    }


def _headers(suite: apt.Suite, release: str, work: Path, made: Path) -> None:
    """Get the kernel's headers, its build tools and the libraries that those run with."""
    suite.say("headers and build tools")
    own = suite.find(f"linux-headers-{release}")
    if own is None:
        raise Skipped(f"the suite {suite.name} has no linux-headers-{release}; --no-headers goes without")
    common = re.sub(r"-amd64$", "-common", own.name)
    kbuild = _kbuild(suite, release)
    root = store.made(work / "headers-root")
    folder = work / "headers-debs"
    suite.download([own.name, common], folder)
    for file in suite.download_with_dependencies(kbuild, folder):
        apt.unpack(file, root)
        file.unlink()
    kernel_headers.from_packages(root, release, made / store.HEADERS)


def _kbuild(suite: apt.Suite, release: str) -> str:
    """Return the package of the build tools: of this very release, or in older suites of the series."""
    exact = f"linux-kbuild-{release.removesuffix('-amd64')}"
    series = "linux-kbuild-" + ".".join(release.split(".")[:2])
    return exact if suite.find(exact) else series
