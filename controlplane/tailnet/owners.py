"""Whether the owners that are configured are people of the tailnet. Pure."""

from collections.abc import Sequence

SHOWN = 5


def complaint(owners: Sequence[str], people: Sequence[str] | None) -> str | None:
    """A sentence where nobody, or not everybody, gets in. ``people`` are log-in names, None where nobody could ask."""
    if not owners:
        return (
            "auth.owners names nobody, so nobody on the tailnet may use Perry or ssh to a workspace without a key; "
            f"`perry config set auth.owners NAME` names you{_choice(people)}."
        )
    if people is None:
        return None
    unknown = [owner for owner in owners if owner not in people]
    if not unknown:
        return None
    who = f"auth.owners names {', '.join(unknown)}, and nobody on the tailnet has that log-in name"
    consequence = "" if len(unknown) < len(owners) else ", so nobody gets in"
    return f"{who}{consequence}; mend it with `perry config set auth.owners NAME`{_choice(people)}."


def _choice(people: Sequence[str] | None) -> str:
    if not people:
        return ""
    more = ", …" if len(people) > SHOWN else ""
    return f" (there are {', '.join(people[:SHOWN])}{more})"
