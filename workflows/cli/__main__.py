"""`python -m workflows.cli`: the command `stempilot`, for processes that start others."""

from workflows.cli import main

if __name__ == "__main__":
    main()
