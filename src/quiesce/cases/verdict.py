"""Running a case: by search or step by step, on one kernel set or on all that its page wants judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial

from quiesce.cases.case import Case, Row
from quiesce.cases.scenario import build, check_steps, long_form
from quiesce.explore.model import Model, Step
from quiesce.explore.replay import Played, replay
from quiesce.explore.search import Bounds, Result, Search, Violation
from quiesce.rules.registry import invariants

HOLDS, VIOLATED, NOT_UNDERSTOOD = "holds", "violated", "not understood"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one case on one kernel set."""

    case: Case
    kernel: str
    verdict: str
    first: Violation | None
    """A shortest life that breaks the rule the case is about."""
    result: Result
    missing: tuple[str, ...] = ()
    """What ``sometimes`` asked for and no life showed; makes "holds" not understood."""

    @property
    def positive(self) -> int:
        """States in which a watched rule is broken; never 0 when one is, though the life may lead to a known state."""
        return self.result.bad

    @property
    def negative(self) -> int:
        """States in which none is."""
        return self.result.states - self.result.bad

    @property
    def observation(self) -> str:
        """The greppable line that litmus tests end with."""
        word = "Never" if not self.positive else "Sometimes" if self.negative else "Always"
        return f"Observation {self.case.name} {word} {self.positive} {self.negative}"


def watcher(case: Case) -> Callable[[str], bool]:
    """Return the test whether a rule is one of those that the case forbids to break."""
    known: dict[str, bool] = {}

    def watched(rule: str) -> bool:
        if rule not in known:
            known[rule] = any(fnmatchcase(rule, pattern) for pattern in case.never)
        return known[rule]

    return watched


def make_search(
    case: Case,
    bounds: Bounds | None = None,
    *,
    first_only: bool = False,
    progress: Callable[[Result], None] | None = None,
) -> Search:
    """Return the search of a case, not begun; raises BadInput."""
    limits = bounds or Bounds(depth=case.depth)
    return Search(build(case), watcher(case), invariants(), limits, first_only=first_only, progress=progress)


def run(
    case: Case,
    *,
    bounds: Bounds | None = None,
    first_only: bool = False,
    progress: Callable[[Result], None] | None = None,
    jobs: int = 1,
) -> Verdict:
    """Search a case, or follow its steps, on the kernel it names, with ``jobs`` processes; raises BadInput."""
    if case.steps:
        return _follow(case, build(case))
    result = _search(replace(case, windows=0, faults=0), bounds, first_only, progress, jobs)
    if (case.windows or case.faults) and not (first_only and result.violations):
        result = _widened(result, _search(case, bounds, first_only, progress, jobs))
    return judge(case, result)


def _search(
    case: Case,
    bounds: Bounds | None,
    first_only: bool,
    progress: Callable[[Result], None] | None,
    jobs: int,
) -> Result:
    if jobs == 1:
        return make_search(case, bounds, first_only=first_only, progress=progress).run()
    build(case)
    limits = bounds or Bounds(depth=case.depth)
    from quiesce.explore.parallel import search_in_parallel

    make = partial(make_search, case, limits, first_only=first_only)
    return search_in_parallel(make, jobs, limits.depth, first_only=first_only)


def _widened(plain: Result, full: Result) -> Result:
    """Return the result with interference and failures, but show a rule broken by a life without them where there is
    one: it is the easier to understand, even if it is longer."""
    full.violations.update(plain.violations)
    full.seconds += plain.seconds
    return full


def judge(case: Case, result: Result) -> Verdict:
    """Return the verdict on what a search found."""
    first = headline(case, result.violations.values())
    missing = tuple(wish for wish in case.sometimes if not _shown(wish, result))
    verdict = VIOLATED if first else NOT_UNDERSTOOD if missing else HOLDS
    return Verdict(case, case.kernel, verdict, first, result, missing)


def headline(case: Case, violations: Iterable[Violation]) -> Violation | None:
    """Return the violation that the case is about: of the rule its page names first, then the shortest."""

    def order(violation: Violation) -> tuple[int, int, int]:
        rule = violation.finding.rule
        rank = next(at for at, pattern in enumerate(case.never) if fnmatchcase(rule, pattern))
        return rank, len(violation.steps), violation.states

    return min(violations, key=order, default=None)


def _shown(wish: str, result: Result) -> bool:
    kind, _, what = long_form(wish).partition(" ")
    if kind == "says":
        return any(what in message for message in result.said)
    if kind == "waits":
        return any(fnmatchcase(event, what) for event in result.waits)
    return any(fnmatchcase(event, what) and count for event, count in result.taken.items())


def _follow(case: Case, model: Model) -> Verdict:
    """Follow the exact steps of a case; what the steps show is all there is."""
    check_steps(case, model)
    result = Result(bound="steps", states=1)
    played = replay(model, case.steps)
    watched = watcher(case)
    for at, one in enumerate(played, start=1):
        result.taken[one.step.event] += one.outcome.enabled
        result.transitions += one.outcome.enabled
        result.states += one.outcome.enabled
        result.depth = at
        result.said.update(str(getattr(item, "text", "")) for item in one.outcome.outputs)
        _note_findings(case, model, played, at, watched, result)
    verdict = judge(case, result)
    stuck = [one for one in played if not one.outcome.enabled]
    if stuck and verdict.first is None:
        what = f"step {stuck[0].step.event!r} cannot take place on {case.kernel}"
        if stuck[0].outcome.waits:
            what += f": {stuck[0].outcome.waits}"
        return Verdict(case, case.kernel, NOT_UNDERSTOOD, None, result, (what, *verdict.missing))
    unasked = [f"choice {what} = {option}, which nothing asks for" for one in played for what, option in one.unasked]
    if unasked and verdict.first is None:
        return Verdict(case, case.kernel, NOT_UNDERSTOOD, None, result, (*unasked, *verdict.missing))
    return verdict


def _note_findings(
    case: Case, model: Model, played: list[Played], at: int, watched: Callable[[str], bool], result: Result
) -> None:
    findings = list(played[at - 1].outcome.findings)
    if at == len(played) and not played[-1].outcome.crashed:
        findings += [finding for rule in invariants() for finding in rule.check(model.kernel)]
    bad = False
    for finding in findings:
        if watched(finding.rule):
            bad = True
            steps: tuple[Step, ...] = tuple(one.step for one in played[:at])
            result.violations.setdefault(finding.rule, Violation(finding, steps, at, 0.0))
    result.bad += bad


def rows(case: Case) -> tuple[Row, ...]:
    """Return the kernel sets on which a case is to be judged, at least its own."""
    return case.judge or (Row(case.kernel, ""),)
