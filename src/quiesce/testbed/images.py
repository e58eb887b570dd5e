"""The kernels in the store, ready to be booted."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quiesce.snapshot.errors import BadInput
from quiesce.testbed import store
from quiesce.testbed.errors import Skipped
from quiesce.testbed.kernel_headers import BUILD
from quiesce.testbed.module_files import in_load_order, module_name

DEBIAN = ("5.10", "6.1", "6.12", "newest")
"""The kernels of Debian that have a short name."""

INSTRUMENTED = "instrumented"


@dataclass(frozen=True)
class KernelImage:
    """A kernel in the store."""

    name: str
    release: str
    package: str
    """Name and version of Debian's package, which tells the point release; empty for any other kernel."""
    folder: Path
    relocatable: bool
    switches: bool
    version: str
    chosen_set: str = ""
    needed: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False, compare=False)
    built_in: frozenset[str] = field(default_factory=frozenset, repr=False, compare=False)

    @property
    def kernel_set(self) -> str:
        """The model's kernel set for this kernel, as an expression such as ``v6.12 + dfa2f4d5f9e5``."""
        if self.chosen_set:
            return self.chosen_set
        from quiesce.testbed.kernel_sets import kernel_set_of

        return kernel_set_of(self.release, self.package)

    @property
    def point_release(self) -> str:
        """The stable release it is built from, ``6.1.192``; the name of a Debian release need not carry it."""
        packaged = self.package.split()[-1] if self.package else ""
        found = re.match(r"\d+\.\d+(\.\d+)?", packaged) or re.match(r"\d+\.\d+(\.\d+)?", self.release)
        return found.group() if found else self.release

    @property
    def vmlinux(self) -> Path:
        """The ELF file, unpacked; has type information where the kernel was built with it, and boots through PVH."""
        return self.folder / "vmlinux"

    @property
    def bzimage(self) -> Path:
        """The kernel as boot loaders take it."""
        return self.folder / "bzImage"

    @property
    def config(self) -> Path | None:
        """The settings it was built with, where they are known."""
        path = self.folder / "config"
        return path if path.is_file() else None

    @property
    def headers(self) -> Path | None:
        """The folder that external modules are built against, where there is one."""
        path = self.folder / store.HEADERS / BUILD
        return path if path.is_dir() else None

    def builtin(self, name: str) -> bool:
        """Tell whether a module is part of the kernel itself."""
        return module_name(name) in self.built_in

    def has_module(self, name: str) -> bool:
        """Tell whether a module is there, built in or as a file."""
        return self.builtin(name) or module_name(name) in self.needed

    def modules(self, names: Iterable[str]) -> list[Path]:
        """Return the files of modules and of all they need in the order to load them, without those built in."""
        wanted = [module_name(name) for name in names if not self.builtin(name)]
        order = in_load_order(wanted, {name: list(others) for name, others in self.needed.items()})
        files = [self.folder / "modules" / f"{name}.ko" for name in order if name not in self.built_in]
        for file in files:
            if not file.is_file():
                raise Skipped(f"the kernel {self.name} ({self.release}) has no module {file.stem}")
        return files


def image_of(record: Mapping[str, Any]) -> KernelImage:
    """Return the kernel that a manifest describes."""
    return KernelImage(
        name=record["name"],
        release=record.get("release", ""),
        package=record.get("package", ""),
        folder=store.kernels_dir() / record["folder"],
        relocatable=bool(record.get("relocatable")),
        switches=bool(record.get("switches")),
        version=record["version"],
        chosen_set=record.get("kernel_set", ""),
        needed={name: tuple(others) for name, others in record.get("modules", {}).items()},
        built_in=frozenset(record.get("builtin", ())),
    )


def installed() -> list[KernelImage]:
    """Return the kernels in the store, oldest release first."""
    from quiesce.testbed.apt import natural

    return sorted(map(image_of, store.manifests()), key=lambda image: (natural(image.release), image.name))


def full_name(name: str) -> str:
    """Return the whole name of a kernel: ``6.1`` is ``debian:6.1``; raises BadInput for what names none."""
    kind, _, rest = name.partition(":")
    if name in DEBIAN:
        return f"debian:{name}"
    if name == INSTRUMENTED or (kind == "debian" and rest in DEBIAN):
        return name
    if kind == "added" and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,80}", rest):
        return name
    known = ", ".join((*(f"debian:{version}" for version in DEBIAN), INSTRUMENTED, "added:NAME"))
    raise BadInput(repr(name), "", f"the name of a kernel: {known}")


def find_image(name: str) -> KernelImage:
    """Return a kernel by its name; raises Skipped, with what to do, when it is not in the store."""
    whole = full_name(name)
    record = store.manifest(whole)
    if record is None:
        raise Skipped(f"the kernel {whole} is not in the store; {_how_to_get(whole)}")
    image = image_of(record)
    if not os.path.isfile(image.vmlinux):
        raise Skipped(f"the kernel {whole} is damaged; {_how_to_get(whole)}")
    return image


def _how_to_get(name: str) -> str:
    if name == INSTRUMENTED:
        return "build it with 'quiesce kernel build'"
    if name.startswith("added:"):
        return f"add it with 'quiesce kernel add PATH --name {name.removeprefix('added:')}'"
    return f"fetch it with 'quiesce kernel fetch {name}'"
