"""Taking turns, and what to say of the figures."""

import statistics
from collections.abc import Callable

import msgspec


class Figure(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One line of the report. ``ratio`` is candidate over floor, of medians; ``met`` whether it kept to the goal."""

    name: str
    unit: str
    candidate: list[float]
    floor: list[float]
    ratio: float
    goal: str
    met: bool
    note: str = ""


def take_turns(
    candidate: Callable[[], float], floor: Callable[[], float], rounds: int
) -> tuple[list[float], list[float]]:
    """``rounds`` figures of each, taken alternately so that both meet the same weather; the first is thrown away."""
    candidate()
    floor()
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(rounds):
        ours.append(candidate())
        theirs.append(floor())
    return ours, theirs


def figure(
    name: str,
    unit: str,
    ours: list[float],
    theirs: list[float],
    *,
    most: float | None = None,
    least: float | None = None,
) -> Figure:
    """Compare. ``most`` is the highest ratio that meets the goal, ``least`` the lowest."""
    ratio = statistics.median(ours) / statistics.median(theirs)
    met = (most is None or ratio <= most) and (least is None or ratio >= least)
    goal = f"≤ {most} ×" if most is not None else f"≥ {least} ×"
    return Figure(
        name=name,
        unit=unit,
        candidate=[round(value, 4) for value in ours],
        floor=[round(value, 4) for value in theirs],
        ratio=round(ratio, 3),
        goal=goal,
        met=met,
    )


def line(each: Figure) -> str:
    """A figure for people: medians with their spread."""

    def spread(values: list[float]) -> str:
        return f"{statistics.median(values):.3f} ({min(values):.3f}–{max(values):.3f})"

    verdict = "met" if each.met else "MISSED"
    return (
        f"{each.name:<34} {spread(each.candidate):>26} {each.unit:<7} floor {spread(each.floor):>26}"
        f"  ratio {each.ratio:.2f}, goal {each.goal}: {verdict}"
    )
