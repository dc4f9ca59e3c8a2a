"""Bringing a database up to this program's layout, by numbered scripts."""

import sqlite3
from importlib import resources
from pathlib import Path

from controlplane.errors import StateError


def migrate(connection: sqlite3.Connection, package: str, path: Path | None, afterwards: str) -> None:
    """Run the scripts of ``package`` that the file has not seen, each in a transaction of its own.

    StateError where a newer program wrote it; ``afterwards`` says what becomes of what was in it.
    """
    scripts = sorted(
        (entry for entry in resources.files(package).iterdir() if entry.name.endswith(".sql")),
        key=lambda entry: entry.name,
    )
    newest = int(scripts[-1].name[:4])
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > newest:
        raise StateError(
            f"{path} was written by a newer Perry (version {version} of its layout, this one knows {newest}); "
            f"run that Perry, or move the file away and start again: {afterwards}."
        )
    for script in scripts:
        number = int(script.name[:4])
        if number > version:
            connection.executescript(
                f"BEGIN IMMEDIATE;\n{script.read_text()}\nPRAGMA user_version = {number};\nCOMMIT;"
            )
