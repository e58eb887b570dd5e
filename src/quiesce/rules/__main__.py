"""``python -m quiesce.rules FOLDER`` writes the page of every rule, docs/rules by default."""

import sys
from pathlib import Path

from quiesce.rules.page import file_name, index, page
from quiesce.rules.registry import RULES


def write_pages(folder: Path) -> None:
    """Write one page for each rule and an index; remove pages of rules that are gone."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.md"):
        old.unlink()
    for rule in RULES:
        (folder / file_name(rule)).write_text(page(rule))
    (folder / "README.md").write_text(index(RULES))


if __name__ == "__main__":
    write_pages(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/rules"))
