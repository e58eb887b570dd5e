"""docs/rules is what ``python -m quiesce.rules`` writes."""

from __future__ import annotations

from pathlib import Path

from quiesce.rules.__main__ import write_pages
from quiesce.rules.page import file_name, index, page
from quiesce.rules.registry import RULES
from quiesce.rules.rule import Rule

DOCS = Path(__file__).parents[2] / "docs" / "rules"


def test_the_pages_are_those_of_the_rules() -> None:
    wanted = {file_name(rule): page(rule) for rule in RULES} | {"README.md": index(RULES)}
    assert {path.name: path.read_text() for path in DOCS.iterdir()} == wanted


def test_pages_of_rules_that_are_gone_are_removed(tmp_path: Path) -> None:
    (tmp_path / "irq-gone.md").write_text("old")
    write_pages(tmp_path)
    assert len(list(tmp_path.iterdir())) == len(RULES) + 1
    assert not (tmp_path / "irq-gone.md").exists()


def test_a_page_leaves_out_what_is_not_known() -> None:
    text = page(Rule("irq/x-y", "It is wrong.", "Because."))
    assert text.splitlines()[0] == "# irq/x-y"
    assert "## Kernels" not in text
    assert "## Commits" not in text
    assert text.endswith("No shipped case breaks it.\n")


def test_a_page_tells_how_to_see_the_rule_broken() -> None:
    text = page(Rule("irq/x-y", "It is wrong.", "Because.", "v6.11.", ("fc8c818e7569",), "some-case --kernel v6.11"))
    assert "- `fc8c818e7569` (v6.11): " in text
    assert text.endswith("`quiesce run some-case --kernel v6.11`\n")
