"""The `aimux` command. One module a command; main.py names them all."""
