"""`python -m workflows.cli`: the command `stempilot`, for processes that start others."""

from workflows.command import main

if __name__ == "__main__":
    main()
