"""Alembic migrations of the catalogue; `database.upgrade` runs them, no ini file is needed."""

__all__ = []
