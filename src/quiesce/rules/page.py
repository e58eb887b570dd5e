"""The page of a rule, from the rule itself; docs/rules holds the output and a test keeps it equal."""

from __future__ import annotations

from quiesce.kernel.changes import Change, every
from quiesce.kernel.unmodelled import unmodelled
from quiesce.rules.rule import Rule


def page(rule: Rule) -> str:
    """Return the page as Markdown."""
    lines = [f"# {rule.id}", "", rule.meaning, "", "## Why", "", rule.why, ""]
    if rule.kernels:
        lines += ["## Kernels", "", rule.kernels, ""]
    if rule.commits:
        lines += ["## Commits", ""]
        lines += [f"- `{change.id}` ({change.since or 'proposed'}): {change.subject}" for change in commits(rule)]
        lines.append("")
    lines += ["## Smallest failing example", ""]
    lines.append(f"`quiesce run {rule.example}`" if rule.example else "No shipped case breaks it.")
    return "\n".join(lines) + "\n"


def commits(rule: Rule) -> list[Change]:
    """Return the changes that a rule names, whether the model has them or not; raises KeyError."""
    known = {change.id: change for change in (*every(), *unmodelled())}
    return [known[name] for name in rule.commits]


def file_name(rule: Rule) -> str:
    """Return the name of the page below docs/rules."""
    return rule.id.replace("/", "-") + ".md"


def index(rules: tuple[Rule, ...]) -> str:
    """Return the page that lists all rules."""
    lines = ["# Rules", "", "Written by `python -m quiesce.rules` from the rules themselves.", ""]
    lines += [f"- [{rule.id}]({file_name(rule)}): {rule.meaning}" for rule in rules]
    return "\n".join(lines) + "\n"
