"""The case format: one page of text that says what to run on which machine and kernel, and what must hold.

::

    case      NAME
    title     one line
    source    where it comes from (may repeat)
    machine   NAME or PATH of a dump, or an indented description (docs/machines.md)
    kernel    v6.11 + COMMIT - COMMIT
    drivers   ahci vfio-pci
    devices   00:1f.2                     default: every device that one of the drivers matches
    depth     6                           events in a life; windows and faults bound what may happen inside events
    windows   0
    faults    0
    setup                                 what has happened before the search begins
      boot
    events                                patterns of the events the search may use; default: all
      bind * 00:1f.2
    steps                                 or the exact sequence; ``quiesce run`` prints its traces so
      1  bind ahci 0000:00:1f.2
         choose WHAT = OPTION
    never                                 rules that must not break, patterns allowed, the one it is about first
      context/sleep-in-atomic
    sometimes                             what must have happened somewhere, so that "never" says something
      event vfio-intx-mask 0000:00:1f.2
      says Resources present
    judge                                 the rows of ``quiesce matrix``
      v6.11-rc2                           the report
      v6.11-rc2 + fc8c818e7569            the merged fix
    why
      Any text.

A key starts in the first column; what is indented belongs to the key above. ``#`` starts a comment line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from quiesce.explore.model import Step
from quiesce.kernel.changes import KernelSet, UnknownKernel, kernel
from quiesce.snapshot.errors import BadInput


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a matrix: a kernel set and what it stands for."""

    kernel: str
    label: str


@dataclass(frozen=True, slots=True)
class Case:
    """One case."""

    name: str
    title: str = ""
    source: tuple[str, ...] = ()
    machine: str = ""
    kernel: str = ""
    drivers: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    depth: int = 6
    windows: int = 0
    faults: int = 0
    setup: tuple[Step, ...] = (Step("boot"),)
    events: tuple[str, ...] = ("*",)
    steps: tuple[Step, ...] = ()
    never: tuple[str, ...] = ("*",)
    sometimes: tuple[str, ...] = ()
    judge: tuple[Row, ...] = ()
    why: str = ""
    path: str = field(default="", compare=False)
    """The file it was read from; machines are named relative to it."""

    def on(self, kernel_set: str) -> Case:
        """Return the same case on another kernel."""
        return replace(self, kernel=kernel_set)


@dataclass(slots=True)
class _Section:
    key: str
    value: str
    line: int
    body: list[tuple[int, str]] = field(default_factory=list)


_WORDS = ("drivers", "devices")
_NUMBERS = ("depth", "windows", "faults")
_LINES = ("events", "never", "sometimes")
_KEYS = frozenset(
    {"case", "title", "source", "machine", "kernel", "setup", "steps", "judge", "why", *_WORDS, *_NUMBERS, *_LINES}
)
_ROW = re.compile(r"(\S+(?: [+-] \S+)*)\s*(.*)")
_COUNT = re.compile(r"[0-9]{1,4}")
_LONGEST = 1 << 20
"""Characters of a case; the longest printed traces stay far below."""
MOST = 9999
"""The largest depth and the most windows or faults that may be asked for."""
_WISHES = ("event", "says", "waits")
_IGNORED = frozenset({"verdict", "Observation"})
"""Lines of a printed trace that say what was found; not part of the case."""


def parse_case(text: str, path: str = "case") -> Case:
    """Read a case; raises BadInput with the line that is wrong."""
    if len(text) > _LONGEST:
        raise BadInput(path, "", f"a page of text, at most {_LONGEST >> 20} MiB")
    sections = _sections(text, path)
    if not sections or sections[0].key != "case":
        raise BadInput(path, "line 1", "'case NAME' first")
    values: dict[str, object] = {"path": path}
    for section in sections:
        _take(section, values, path)
    case = Case(**values)  # type: ignore[arg-type]
    if not case.machine:
        raise BadInput(path, "end", "a 'machine' line")
    if not case.kernel:
        raise BadInput(path, "end", "a 'kernel' line")
    return case


def _sections(text: str, path: str) -> list[_Section]:
    sections: list[_Section] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            if sections and sections[-1].key == "why":
                sections[-1].body.append((number, line))
            continue
        if line[0].isspace():
            if not sections:
                raise BadInput(path, f"line {number}", "a key in the first column before any indented line")
            sections[-1].body.append((number, line))
            continue
        key, _, value = line.partition(" ")
        if key in _IGNORED:
            continue
        if key not in _KEYS:
            raise BadInput(path, f"line {number}", f"one of {', '.join(sorted(_KEYS))}, not {key!r}")
        sections.append(_Section(key, value.strip(), number))
    return sections


def _take(section: _Section, values: dict[str, object], path: str) -> None:
    key, value = section.key, section.value
    lines = [line.strip() for _, line in section.body]
    if key == "case":
        values["name"] = _needed(section, path)
    elif key == "source":
        values["source"] = (*_strings(values.get("source")), " ".join([value, *lines]).strip())
    elif key == "machine":
        values["machine"] = value if not section.body else "\n".join([f"machine {value or 'inline'}", *lines])
    elif key in _WORDS:
        values[key] = (*_strings(values.get(key)), *" ".join([value, *lines]).split())
    elif key in _NUMBERS:
        values[key] = _number(section, path)
    elif key in _LINES:
        values[key] = tuple(filter(None, [value, *lines]))
        if key == "sometimes":
            _check_wishes(section, path)
    elif key in ("setup", "steps"):
        values[key] = _steps(section, path)
    elif key == "judge":
        values[key] = tuple(_row(number, line, path) for number, line in section.body)
    elif key == "kernel":
        values[key] = _needed(section, path)
        parse_kernel(value, path, f"line {section.line}")
    else:
        values[key] = "\n".join([value, *(_dedent(line) for _, line in section.body)]).strip()


def _check_wishes(section: _Section, path: str) -> None:
    for number, line in [(section.line, section.value), *section.body]:
        if line.strip() and line.split()[0] not in _WISHES:
            raise BadInput(path, f"line {number}", f"one of {', '.join(_WISHES)} first, not {line.split()[0]!r}")


def _strings(known: object) -> tuple[str, ...]:
    return known if isinstance(known, tuple) else ()


def _dedent(line: str) -> str:
    return line[2:] if line.startswith("  ") else line.strip()


def _needed(section: _Section, path: str) -> str:
    if not section.value:
        raise BadInput(path, f"line {section.line}", f"a value after {section.key!r}")
    return section.value


def _number(section: _Section, path: str) -> int:
    if not _COUNT.fullmatch(section.value):
        place, given = f"line {section.line}", section.value[:40]
        raise BadInput(path, place, f"a whole number up to {MOST} after {section.key!r}, not {given!r}")
    return int(section.value)


def _steps(section: _Section, path: str) -> tuple[Step, ...]:
    steps: list[Step] = []
    for number, line in section.body:
        words = line.split()
        if section.key == "setup" or words[0].isdecimal():
            event = " ".join(words[1:] if words[0].isdecimal() else words)
            steps.append(Step(event.partition(" -> ")[0]))
        elif words[0] == "choose":
            what, equals, option = line.strip().removeprefix("choose ").rpartition(" = ")
            if not equals or not steps:
                raise BadInput(path, f"line {number}", "'choose WHAT = OPTION' below a step")
            last = steps[-1]
            steps[-1] = Step(last.event, (*last.choices, (what, option)))
    return tuple(steps)


def _row(number: int, line: str, path: str) -> Row:
    match = _ROW.fullmatch(line.strip())
    assert match is not None
    parse_kernel(match[1], path, f"line {number}")
    return Row(match[1], match[2])


def parse_kernel(text: str, path: str = "kernel", place: str = "kernel set") -> KernelSet:
    """Read ``v6.11 + COMMIT - COMMIT``; raises BadInput."""
    words = text.split()
    added: list[str] = []
    removed: list[str] = []
    signs = words[1::2]
    if not words or len(words) % 2 == 0 or any(sign not in "+-" for sign in signs):
        raise BadInput(path, place, f"a kernel set such as 'v6.11 + COMMIT - COMMIT', not {text!r}")
    for sign, name in zip(signs, words[2::2], strict=True):
        (added if sign == "+" else removed).append(name)
    try:
        return kernel(words[0]).edited(added, removed)
    except UnknownKernel as error:
        raise BadInput(path, place, f"a kernel set that quiesce knows: {error}") from None


def print_case(case: Case) -> str:
    """Return the text of a case without its ``judge`` rows and prose; ``parse_case`` reads it back."""
    lines = [f"case      {case.name}"]
    if case.title:
        lines.append(f"title     {case.title}")
    if "\n" in case.machine:
        first, *rest = case.machine.splitlines()
        lines += [f"machine   {first.removeprefix('machine ')}", *(f"  {line}" for line in rest)]
    else:
        lines.append(f"machine   {case.machine}")
    lines.append(f"kernel    {case.kernel}")
    for key in _WORDS:
        if getattr(case, key):
            lines.append(f"{key:<9} {' '.join(getattr(case, key))}")
    lines += [f"{key:<9} {getattr(case, key)}" for key in _NUMBERS]
    lines += ["setup", *(line for step in case.setup for line in print_step(step, "  "))]
    if not case.steps:
        lines += ["events", *(f"  {event}" for event in case.events)]
    lines += ["never", *(f"  {rule}" for rule in case.never)]
    return "\n".join(lines)


def print_step(step: Step, indent: str) -> list[str]:
    """Return the lines of one step; the first begins with ``indent``, which may end in the step's number."""
    deeper = " " * (len(indent) + 3)
    return [f"{indent}{step.event}", *(f"{deeper}choose {what} = {option}" for what, option in step.choices)]
