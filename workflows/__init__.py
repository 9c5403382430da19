"""The top layer: Prefect flows, the command line, evaluation; the one place where everything is wired together."""

__all__ = ()
