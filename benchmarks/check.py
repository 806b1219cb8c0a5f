"""What got slower? `python benchmarks/check.py RESULTS.json [--baseline FILE] [--tolerance 0.2]`

Compares the ratios of a run (ours beside others, taken in turns) and the growth exponents with those of the committed
baseline, `benchmarks/results/<machine>.json`; never absolute times. Slower means: the median ratio fell by more than
the tolerance, and to below the lower quartile of the baseline. Exit status 1 if anything did, 2 if there is nothing to
compare with.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
import results

TOLERANCE = 0.2
EXPONENT_TOLERANCE = 0.15


@dataclass(frozen=True)
class Change:
    """`before` and `now` are ratios (more is better) or exponents (less is better)."""

    what: str
    before: float
    now: float
    worse: bool
    better: bool = False

    def __str__(self) -> str:
        return f"{self.what}: {self.before:g} -> {self.now:g}"


def changes(now: Mapping[str, Any], before: Mapping[str, Any], tolerance: float = TOLERANCE) -> list[Change]:
    """Of everything that is in both."""
    found = []
    old = {ratio.key: ratio for ratio in results.ratios(before)}
    for new in results.ratios(now):
        if (was := old.get(new.key)) is None:
            continue
        worse = new.median < was.median * (1 - tolerance) and new.median < was.q1
        better = new.median > was.median * (1 + tolerance) and new.median > was.q3
        found.append(Change(f"{new.benchmark}, times as fast as {new.other}", was.median, new.median, worse, better))
    exponents = {(test, name): table["exponent"] for test, name, table in results.growths(before)}
    for test, name, table in results.growths(now):
        if (test, name) in exponents:
            was_exponent, exponent = exponents[test, name], table["exponent"]
            steeper = exponent > was_exponent + EXPONENT_TOLERANCE
            found.append(Change(f"{test}, exponent of {name}", was_exponent, exponent, steeper))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--baseline", type=Path, default=machine.results_file())
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="share by which a ratio may fall")
    options = parser.parse_args(arguments)
    if not options.baseline.is_file():
        print(f"There is no baseline of this machine, {options.baseline}; --baseline names another.", file=sys.stderr)
        return 2
    found = changes(results.load(options.results), results.load([options.baseline]), options.tolerance)
    if not found:
        print("Nothing was measured that the baseline has, too.", file=sys.stderr)
        return 2
    for title, some in (
        ("Slower", [change for change in found if change.worse]),
        ("Faster", [change for change in found if change.better]),
    ):
        if some:
            print(f"{title}:")
            print("\n".join(f"  {change}" for change in some))
    worse = sum(change.worse for change in found)
    print(f"{len(found)} ratios and exponents compared, {worse} worse.")
    return int(worse > 0)


if __name__ == "__main__":
    sys.exit(main())
