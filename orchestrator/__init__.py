"""What an experiment is, how it runs, and what is kept of it: spec, loop, features, objectives, journal, catalogue."""

__all__ = []
