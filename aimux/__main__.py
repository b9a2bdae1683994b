"""`aimux`, and `python -m aimux`, which is the same."""

from __future__ import annotations

import sys

from aimux.installed import version_line


def main() -> None:
    """A call that only asks for the version gets it without loading the command line's libraries."""
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(f"aimux {version_line()}\n")
        return
    try:
        from aimux.cli.main import main
    except KeyboardInterrupt:  # while libraries are read; later click takes it
        sys.exit(130)
    main()


if __name__ == "__main__":
    main()
