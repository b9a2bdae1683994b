"""`python -m aimux`: the same as `aimux`."""

from aimux.cli.main import main

main()
