from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from fake_kernel import ELF, bzimage, module
from quiesce.snapshot.errors import BadInput
from quiesce.testbed import apt, fetch, store
from quiesce.testbed.errors import Skipped

SPLIT = ("binary", "modules", "base")


class Archive:
    """A suite that offers one kernel; every package is a function that fills a folder."""

    def __init__(self, release: str, version: str, *, split: bool = False) -> None:
        self.release = release
        self.version = version
        self.packages: dict[str, Callable[[Path], None]] = {f"linux-headers-{release}": self.headers}
        self.packages |= {f"linux-{part}-{release}": lambda root: None for part in SPLIT if split}
        self.packages[f"linux-{'binary' if split else 'image'}-{release}"] = self.image
        self.packages["linux-kbuild-6.1" if not split else f"linux-kbuild-{release.removesuffix('-amd64')}"] = (
            self.kbuild
        )
        self.packages[f"linux-headers-{release.removesuffix('-amd64')}-common"] = self.common
        self.updates = 0
        self.say = store.quiet
        self.name = "suite"

    def image(self, root: Path) -> None:
        boot, tree = store.made(root / "boot"), store.made(root / "lib/modules/x/kernel")
        (boot / f"vmlinuz-{self.release}").write_bytes(bzimage(self.release))
        (boot / f"config-{self.release}").write_text("CONFIG_PCI=y\n")
        (tree / "ahci.ko").write_bytes(module("libahci"))
        (tree / "libahci.ko").write_bytes(module())
        (tree / "unheard_of.ko").write_bytes(module())
        (tree.parent / "modules.builtin").write_text("kernel/acpiphp.ko\n")

    def headers(self, root: Path) -> None:
        build = store.made(root / f"usr/src/linux-headers-{self.release}")
        common = f"linux-headers-{self.release.removesuffix('-amd64')}-common"
        (build / "Makefile").write_text(f"include /usr/src/{common}/Makefile\n")
        (store.made(build / "include/config") / "auto.conf").write_text(
            "CONFIG_PCI=y\nCONFIG_DEBUG_INFO_BTF_MODULES=y\n"
        )
        (build / "vmlinux").write_text("")

    def common(self, root: Path) -> None:
        common = root / f"usr/src/linux-headers-{self.release.removesuffix('-amd64')}-common"
        for name in ("x86", "arm64"):
            store.made(common / "arch" / name)
        (common / "Makefile").write_text("")

    def kbuild(self, root: Path) -> None:
        tools = store.made(root / "usr/lib/linux-kbuild-x/scripts/mod")
        for name in ("modpost", "modpost.real-lsb-64", "modpost.real-msb-64"):
            (tools / name).write_bytes(b"\x7fELF" + name.encode())
            (tools / name).chmod(0o755)
        (store.made(root / "lib/x86_64-linux-gnu") / apt.LOADER).write_text("")

    def update(self) -> None:
        self.updates += 1

    def find(self, name: str) -> apt.Package | None:
        return apt.Package(name, self.version, 1000) if name in self.packages else None

    def newest(self, pattern: str) -> apt.Package:
        found = sorted(name for name in self.packages if re.fullmatch(pattern, name))
        if not found:
            raise Skipped(f"no package {pattern}")
        return apt.Package(found[-1], self.version, 1000)

    def download(self, packages: Sequence[str], folder: Path) -> list[Path]:
        for name in packages:
            (store.made(folder) / f"{name}.deb").write_text(name)
        return sorted(folder.glob("*.deb"))

    def download_with_dependencies(self, package: str, folder: Path) -> list[Path]:
        return self.download([package], folder)

    def unpack(self, file: Path, root: Path) -> None:
        self.packages[file.read_text()](store.made(root))


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Archive], Archive]:
    monkeypatch.setenv("QUIESCE_CACHE", str(tmp_path / "cache"))

    def install(archive: Archive) -> Archive:
        monkeypatch.setattr(apt, "Suite", lambda *_, **__: archive)
        monkeypatch.setattr(apt, "unpack", archive.unpack)
        return archive

    return install


Use = Callable[[Archive], Archive]


def old() -> Archive:
    return Archive("6.1.0-56-amd64", "6.1.192-2")


def test_a_kernel_comes_whole(use: Use) -> None:
    use(old())
    image = fetch.fetch("6.1")
    assert (image.name, image.release) == ("debian:6.1", "6.1.0-56-amd64")
    assert image.package == "linux-image-6.1.0-56-amd64 6.1.192-2"
    assert image.vmlinux.read_bytes() == ELF
    assert image.config is not None
    assert [file.name for file in image.modules(["ahci", "acpiphp"])] == ["libahci.ko", "ahci.ko"]
    assert not image.has_module("unheard_of")
    record = store.manifest("debian:6.1")
    assert record is not None
    assert (record["suite"], record["version"]) == ("bookworm", "6.1.192-2")
    assert store.damaged(record) == []


def test_a_kernel_in_three_packages_comes_whole(use: Use) -> None:
    use(Archive("7.2.13+deb14-amd64", "7.2.13-1", split=True))
    image = fetch.fetch("newest")
    assert image.package == "linux-binary-7.2.13+deb14-amd64 7.2.13-1"
    record = store.manifest("debian:newest")
    assert record is not None
    assert record["packages"] == [f"linux-{part}-7.2.13+deb14-amd64 7.2.13-1" for part in SPLIT]


@pytest.mark.parametrize(
    "name",
    ["linux-image-6.12.107+deb13-amd64", "linux-binary-6.12.9-amd64", "linux-image-6.12-amd64"],
)
def test_ordinary_kernels_are_told_from_others(name: str) -> None:
    assert re.fullmatch(rf"linux-(image|binary)-6\.12{fetch.RELEASE}", name)
    for other in (name.replace("-amd64", "-rt-amd64"), name.replace("-amd64", "-cloud-amd64"), name + "-unsigned"):
        assert not re.fullmatch(rf"linux-(image|binary)-6\.12{fetch.RELEASE}", other)


def test_what_is_there_is_not_fetched_again(use: Use) -> None:
    archive = use(old())
    first = fetch.fetch("6.1")
    assert fetch.fetch("6.1") == first
    assert archive.updates == 1
    fetch.fetch("6.1", update=True)
    assert archive.updates == 2


def test_a_newer_version_comes_when_asked_for(use: Use) -> None:
    use(old())
    fetch.fetch("6.1")
    use(Archive("6.1.0-57-amd64", "6.1.193-1"))
    assert fetch.fetch("6.1").release == "6.1.0-56-amd64"
    assert fetch.fetch("6.1", update=True).release == "6.1.0-57-amd64"


def test_headers_are_fetched_when_they_are_missed(use: Use) -> None:
    use(old())
    assert fetch.fetch("6.1", headers=False).headers is None
    assert fetch.fetch("6.1").headers is not None


def test_headers_can_be_moved_and_need_no_newer_tools(use: Use, tmp_path: Path) -> None:
    use(old())
    build = fetch.fetch("6.1").headers
    assert build is not None
    texts = [(build / name).read_text() for name in ("Makefile", ".kernelvariables")]
    assert not any("/usr/src" in text or str(tmp_path) in text for text in texts)
    assert "$(here)../common/Makefile" in texts[0]
    assert (build / "include/config/auto.conf").read_text() == "CONFIG_PCI=y\n"
    assert not (build / "vmlinux").exists()
    assert [path.name for path in (build / "../common/arch").iterdir()] == ["x86"]
    tool = build / "scripts/mod/modpost"
    assert sorted(path.name for path in tool.parent.iterdir()) == ["modpost", "modpost.elf"]
    assert (tool.parent / "modpost.elf").read_bytes() == b"\x7fELFmodpost.real-lsb-64"
    assert f'/lib\nexec "$lib/{apt.LOADER}"' in tool.read_text()


def test_a_package_that_is_gone_leaves_nothing(use: Use) -> None:
    archive = use(old())
    del archive.packages["linux-headers-6.1.0-56-amd64"]
    with pytest.raises(Skipped, match="--no-headers"):
        fetch.fetch("6.1")
    assert list(store.kernels_dir().iterdir()) == []
    del archive.packages["linux-image-6.1.0-56-amd64"]
    with pytest.raises(Skipped, match="no package"):
        fetch.fetch("6.1")


def test_an_interrupted_fetch_leaves_nothing(use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = use(old())
    archive.packages["linux-image-6.1.0-56-amd64"] = lambda root: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch.fetch("6.1")
    assert list(store.kernels_dir().iterdir()) == []


@pytest.mark.parametrize("name", ["instrumented", "added:x", "debian:4.19", ""])
def test_what_cannot_be_fetched_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match="expected"):
        fetch.fetch(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["debian:5.10", "debian:6.1", "debian:6.12", "debian:newest"])
def test_the_real_archive_has_it(name: str) -> None:
    try:
        image = fetch.fetch(name)
    except Skipped as reason:
        pytest.skip(str(reason))
    assert {"ahci", "e1000e", "nvme", "vfio_pci"} <= image.needed.keys()
    assert image.kernel_set.startswith("v")
    record = store.manifest(name)
    assert record is not None
    assert store.damaged(record) == []
