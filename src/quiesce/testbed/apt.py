"""Debian packages of any suite by apt, without a change to this machine's own apt.

Every suite has its own list of sources, package lists, status and cache in the store. The mirror is the one that this
machine's apt uses already, unless ``QUIESCE_DEBIAN_MIRROR`` or the caller names another; what it sends is checked
against Debian's archive keys as always.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quiesce.snapshot.errors import BadInput
from quiesce.testbed import processes, store
from quiesce.testbed.errors import Skipped

ARCHITECTURE = "amd64"
"""The guests are x86-64 whatever this machine is."""

KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
)
UPDATE_SECONDS, DOWNLOAD_SECONDS, ASK_SECONDS = 300, 3600, 120

LOADER = "ld-linux-x86-64.so.2"


@dataclass(frozen=True)
class Package:
    """One version of a package that a suite offers."""

    name: str
    version: str
    size: int

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """Return a key that sorts 6.12.107 behind 6.12.94."""
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.split(r"(\d+)", text))


def mirrors() -> dict[str, str]:
    """Return the mirrors this machine's apt uses, by label (``Debian``, ``Debian-Security``)."""
    if shutil.which("apt-get") is None:
        raise Skipped("apt-get is not here; 'quiesce kernel add' takes a kernel that is on this machine")
    answer = _run(["apt-get", "indextargets", "--format", "$(LABEL)|$(REPO_URI)", "Created-By: Packages"], ASK_SECONDS)
    found: dict[str, str] = {}
    for line in answer.splitlines():
        label, _, address = line.partition("|")
        found.setdefault(label, address)
    return found


def _keyring() -> Path:
    for path in KEYRINGS:
        if path.is_file():
            return path
    raise Skipped("Debian's archive keys are not here; install debian-archive-keyring")


class Suite:
    """One suite of the Debian archive, such as ``trixie``, with ``SUITE-security`` where that is wanted and known."""

    def __init__(
        self, name: str, mirror: str | None = None, *, security: bool = False, say: store.Say = store.quiet
    ) -> None:
        self.name = name
        self.say = say
        self.folder = store.made(store.cache_dir() / "apt" / store.slug(name))
        self._mirror = mirror or os.environ.get("QUIESCE_DEBIAN_MIRROR") or None
        self._security = security
        self._updated = False

    def _sources(self) -> str:
        known = {} if self._mirror else mirrors()
        address = self._mirror or known.get("Debian")
        if not address:
            raise Skipped("this machine's apt knows no Debian mirror; name one with --mirror or QUIESCE_DEBIAN_MIRROR")
        if re.fullmatch(r"[a-z+]+:[!-Z^-~]+", address) is None:
            raise BadInput(repr(address), "--mirror", "the address of a Debian mirror")
        lines = [f"deb [signed-by={_keyring()}] {address} {self.name} main"]
        if self._security and "Debian-Security" in known:
            lines.append(f"deb [signed-by={_keyring()}] {known['Debian-Security']} {self.name}-security main")
        return "\n".join(lines) + "\n"

    def _options(self) -> list[str]:
        settings = {
            "Dir::Etc::SourceList": self.folder / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "Dir::State": self.folder / "state",
            "Dir::State::Lists": self.folder / "lists",
            "Dir::State::status": self.folder / "status",
            "Dir::Cache": self.folder / "cache",
            "APT::Architecture": ARCHITECTURE,
            "APT::Architectures": ARCHITECTURE,
            # Started by root, apt would read and write as a user that has no right to the store.
            "APT::Sandbox::User": "root",
            # A half-failed update is a failed one.
            "APT::Update::Error-Mode": "any",
            "Acquire::Languages": "none",
            "Acquire::Retries": "2",
            "Acquire::http::Timeout": "30",
            "Acquire::https::Timeout": "30",
            "Acquire::GzipIndexes": "true",
            "DPkg::Post-Invoke": "",
        }
        return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]

    def _apt(self, words: Sequence[str], seconds: float, folder: Path | None = None) -> str:
        return _run([words[0], *self._options(), *words[1:]], seconds, folder)

    def update(self) -> None:
        """Get the suite's package lists; raises Skipped when the mirror cannot be reached or lacks the suite.

        Whatever is asked of a suite first does this.
        """
        self.say(f"{self.name}: package lists")
        sources = self._sources()
        with store.locked(f"apt-{self.name}", self.say):
            for part in ("lists/partial", "cache/archives/partial", "state"):
                store.made(self.folder / part)
            (self.folder / "status").touch()
            store.write_atomic(self.folder / "sources.list", sources.encode())
            _run(["apt-get", *self._options(), "-q", "update"], UPDATE_SECONDS)
        self._updated = True

    def _ready(self) -> None:
        if not self._updated:
            self.update()

    def find(self, package: str) -> Package | None:
        """Return a package by its exact name, or None when the suite has none of that name."""
        self._ready()
        try:
            text = self._apt(["apt-cache", "show", "--no-all-versions", package], ASK_SECONDS)
        except Skipped:
            return None
        fields = dict(re.findall(r"^(Package|Version|Size): (.*)$", text, re.MULTILINE))
        return Package(fields["Package"], fields["Version"], int(fields["Size"])) if len(fields) == 3 else None

    def newest(self, pattern: str) -> Package:
        """Return the newest package whose whole name matches a regular expression; raises Skipped when none does."""
        self._ready()
        text = self._apt(["apt-cache", "search", "--names-only", "."], ASK_SECONDS)
        names = {line.split(" ", 1)[0] for line in text.splitlines()}
        matching = sorted((name for name in names if re.fullmatch(pattern, name)), key=natural)
        found = self.find(matching[-1]) if matching else None
        if found is None:
            raise Skipped(f"the suite {self.name} has no package {pattern} (any more)")
        return found

    def download(self, packages: Sequence[str], folder: Path) -> list[Path]:
        """Download packages into a folder and return the files; apt checks their checksums."""
        self._ready()
        with store.locked(f"apt-{self.name}", self.say):
            self._apt(["apt-get", "-q", "download", *packages], DOWNLOAD_SECONDS, store.made(folder))
        return sorted(folder.glob("*.deb"))

    def download_with_dependencies(self, package: str, folder: Path) -> list[Path]:
        """Download a package and everything it depends on, as for a machine on which nothing is installed."""
        store.made(folder / "partial")
        words = ["apt-get", "-q", "-y", "--no-install-recommends", "-o", f"Dir::Cache::archives={folder.absolute()}"]
        self._ready()
        with store.locked(f"apt-{self.name}", self.say):
            self._apt([*words, "--download-only", "install", package], DOWNLOAD_SECONDS)
        return sorted(folder.glob("*.deb"))


def unpack(package: Path, folder: Path) -> None:
    """Unpack a package's files into a folder; nothing of it is run."""
    _run(["dpkg-deb", "-x", str(package), str(store.made(folder))], DOWNLOAD_SECONDS)


def collect_libraries(root: Path, folder: Path) -> None:
    """Move the loader and the shared libraries out of an unpacked system into one flat folder.

    With those a program of that system runs here: ``LOADER --library-path FOLDER PROGRAM``, whatever this machine has.
    """
    store.made(folder)
    for place in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"):
        for path in sorted((root / place).glob("*.so*")):
            if path.is_symlink() or path.is_file():
                os.replace(path, folder / path.name)
    if not (folder / LOADER).exists():
        raise Skipped(f"the packages brought no {LOADER}")


def _run(words: Sequence[str], seconds: float, folder: Path | None = None) -> str:
    """Run a tool that dies with us (an apt that lives on would hold its locks) and return all it says."""
    if shutil.which(words[0]) is None:
        raise Skipped(f"{words[0]} is not here")
    place = ["-C", str(folder)] if folder else []
    with tempfile.TemporaryFile() as output:
        process = processes.start(
            ["env", *place, "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", *words],
            keep_open=(),
            errors=output.fileno(),
        )
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Skipped(f"{words[0]} took longer than {seconds:.0f} s") from None
        finally:
            processes.end(process)
        output.seek(0)
        text = output.read().decode("utf-8", "replace")
    if status:
        raise Skipped(_reason(words, text))
    return text


def _reason(words: Sequence[str], text: str) -> str:
    """Return apt's first complaint as one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    complaints = [line for line in lines if line.startswith(("E:", "W: Failed", "Err:", "dpkg-deb: error"))]
    return f"{words[0]}: {(complaints or lines or ['no reason given'])[0]}"
