"""`edgecal`, and `python -m edgecal`."""

import sys

_INTERRUPTED = 130
"""What shells say of a command that Ctrl-C ended."""


def main() -> None:
    """Load the command line and run it."""
    try:
        from edgecal.cli.app import main as run  # noqa: PLC0415 - Ctrl-C is heard while it loads
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    run()


if __name__ == "__main__":
    main()
