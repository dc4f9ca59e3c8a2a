"""Taking turns, and what to say of the figures."""

import statistics
from collections.abc import Callable

import msgspec


class Figure(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One line of the report. ``ratio`` is candidate over floor, of medians; ``met`` whether it kept to the goal.

    Where there is nothing to compare with, ``floor`` is empty and the ratio is to the goal.
    """

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


def bounded(name: str, unit: str, values: list[float], *, most: float) -> Figure:
    """A figure with a bound of its own, beside nothing. ``most`` is the highest median that meets the goal."""
    median = statistics.median(values)
    return Figure(
        name=name,
        unit=unit,
        candidate=[round(value, 4) for value in values],
        floor=[],
        ratio=round(median / most, 3),
        goal=f"≤ {most:g} {unit}",
        met=median <= most,
    )


def line(each: Figure) -> str:
    """A figure for people: medians with their spread."""

    def spread(values: list[float]) -> str:
        return f"{statistics.median(values):.3f} ({min(values):.3f}–{max(values):.3f})"

    verdict = "met" if each.met else "MISSED"
    if not each.floor:
        return f"{each.name:<34} {spread(each.candidate):>26} {each.unit:<7} goal {each.goal}: {verdict}"
    return (
        f"{each.name:<34} {spread(each.candidate):>26} {each.unit:<7} floor {spread(each.floor):>26}"
        f"  ratio {each.ratio:.2f}, goal {each.goal}: {verdict}"
    )
