"""What mail programs, forums and hands do to listings; the first kind loses nothing that lspci said."""

import re
from collections.abc import Callable

WRAPPED_AT = (72, 76, 80)


def wrapped(text: str, width: int) -> str:
    """Break lines at blanks like a mail program, without indentation."""
    return "\n".join(_broken(line, width) for line in text.split("\n"))


def _broken(line: str, width: int) -> str:
    lead = len(line) - len(line.lstrip())
    parts = []
    while len(line) > width and (cut := line.rfind(" ", lead + 1, width)) > lead:
        parts.append(line[:cut])
        line, lead = line[cut + 1 :], 0
    return "\n".join([*parts, line])


def quoted(text: str, mark: str = "> ") -> str:
    """Quote as in a reply."""
    return "".join(f"{mark}{line}".rstrip(" ") + "\n" for line in text.splitlines())


def entities(text: str) -> str:
    """Write what HTML reserves as entities."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


HARMLESS: dict[str, Callable[[str], str]] = {
    "quoted": quoted,
    "quoted-twice": lambda text: quoted(quoted(text), ">"),
    "quoted-without-blank": lambda text: quoted(text, ">"),
    "crlf": lambda text: text.replace("\n", "\r\n"),
    "nbsp": lambda text: text.replace(" ", "\u00a0"),
    "nbsp-indentation": lambda text: re.sub(r"^\s+", lambda at: at[0].replace("\t", "\u00a0" * 8), text, flags=re.M),
    "nbsp-mojibake": lambda text: text.replace("\t", "\u00c2\u00a0\u00c2\u00a0"),
    "no-indentation": lambda text: re.sub(r"^[ \t]+", "", text, flags=re.M),
    "blanks-for-tabs": lambda text: text.expandtabs(8),
    "tabs-for-blanks": lambda text: re.sub(r" {8}", "\t", text),
    "indented": lambda text: "".join(f"    {line}\n" for line in text.splitlines()),
    "trailing-blanks": lambda text: text.replace("\n", "   \n"),
    "bom": lambda text: f"\ufeff{text}",
    "zero-width": lambda text: text.replace("\n", "\u200b\n"),
    "entities": entities,
    "double-spaced": lambda text: text.replace("\n", "\n\n"),
    "fenced": lambda text: f"Here it is:\n\n```\n{text}```\n\nWhat now?\n",
    "mail": lambda text: f"Hello,\n\n# lspci -vvv\n{text}\n[    0.1] pci 0000:00:1f.7: x\nThanks, 10:15.3 o'clock\n",
    "no-empty-lines": lambda text: re.sub(r"\n\n+", "\n", text),
    **{f"wrapped-{width}": lambda text, width=width: wrapped(text, width) for width in WRAPPED_AT},
    "wrapped-and-quoted": lambda text: quoted(wrapped(text, 76)),
    "quoted-and-wrapped": lambda text: wrapped(quoted(text), 78),
    "wrapped-without-indentation": lambda text: wrapped(re.sub(r"^[ \t]+", "", text, flags=re.M), 74),
}
