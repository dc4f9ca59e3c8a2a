"""What came from a workspace, made fit for terminals and prompts. Pure."""


def clean(text: str) -> str:
    """One line without control characters."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())
