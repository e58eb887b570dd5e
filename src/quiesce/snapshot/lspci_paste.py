"""Undoes what mail programs, forums and terminals do to text on its way: quoting, entities, odd blanks and quotes.

What it does is meant to be harmless for text that nobody damaged. Wrapped lines and lost indentation are not its
business: only who knows what the lines mean can join them (``lspci_lines``).
"""

from __future__ import annotations

import re

_BLANKS = "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000\ufffd"
_NOTHING = "\ufeff\u200b\u200c\u200d\u2060\u00ad\u200e\u200f\x00"
_MEANT = {
    **dict.fromkeys(map(ord, _BLANKS), " "),
    **dict.fromkeys(map(ord, _NOTHING), None),
    **dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212"), "-"),
    **dict.fromkeys(map(ord, "\u201c\u201d\u201e\u201f\u00ab\u00bb"), '"'),
    **dict.fromkeys(map(ord, "\u2018\u2019\u201a\u201b"), "'"),
    **dict.fromkeys(map(ord, "\u2028\u2029\u0085"), "\n"),
    0x2026: "...",
    0xFF0B: "+",
}
_ENTITIES = (("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&nbsp;", " "), ("&#160;", " "))
_APOSTROPHES = ("&#39;", "&#x27;", "&apos;")
_TAG = re.compile(r"</?(?:pre|code|p|div|span|td|tr|table|font|tt|b|i)(?: [^<>\n]{0,200})?>", re.IGNORECASE)
_LINE_BREAK = re.compile(r"<br ?/?>\n?", re.IGNORECASE)
_QUOTED = re.compile(r"^[ \t]{0,3}(?:>(?!TAbort|SERR|Reset) ?+)++", re.MULTILINE)
"""Quoting marks; a wrapped line of lspci's may begin with ``>TAbort-`` itself."""
_PRINTABLE = re.compile(r"=(?:09|20$|3D)", re.MULTILINE)
_MANY = 3
"""So many signs of quoted-printable text are no accident."""


def restored(text: str) -> str:
    """Return the text as it was before it was sent, posted or copied."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _ascii(text)
    if "=" in text and len(_PRINTABLE.findall(text, 0, 1 << 20)) >= _MANY:
        text = _from_quoted_printable(text)
    if "<" in text and ("</" in text or "<br" in text):
        text = _TAG.sub("", _LINE_BREAK.sub("\n", text))
    if "&" in text:
        for entity, meant in (*_ENTITIES, *((item, "'") for item in _APOSTROPHES)):
            text = text.replace(entity, meant)
    if ">" in text:
        text = _QUOTED.sub("", text)
    lines = text.count("\n")
    if lines > _MANY and text.count("\n\n") > 0.45 * lines:
        text = text.replace("\n\n", "\n")
    return text


def _ascii(text: str) -> str:
    """Replace characters that stand for plain ones; ``\u00c2`` before a blank is UTF-8 that was read as Latin-1."""
    if text.isascii():
        return text.replace("\x00", "") if "\x00" in text else text
    return text.replace("\u00c2\u00a0", " ").translate(_MEANT)


def _from_quoted_printable(text: str) -> str:
    """Undo the encoding that mail uses for text (RFC 2045 section 6.7)."""
    import quopri

    return _ascii(quopri.decodestring(text.encode("utf-8", "replace")).decode("utf-8", "replace"))
