"""state.db: SQLite in WAL mode, one file per control plane, changed only by numbered migrations."""

from controlplane.db.database import Database

__all__ = ["Database"]
