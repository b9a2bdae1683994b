"""What commands say to people: in one style, and on a terminal wrapped between words."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import sys
from typing import TYPE_CHECKING, TextIO

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

_ORDINARY = re.compile(r"(?!aimux\b)[a-z][a-z']*(?:[ ,]|:(?!/))")
"""The beginning of a text whose first word is not a name, a path, a URL or a command."""


def say(text: str, *, err: bool = False, hang: int | None = None) -> None:
    """Print it to stdout, or stderr. Lines that begin with a space are commands and tables, which stay as they are,
    unless `hang` gives the indent of their continuation."""
    click.echo(wrapped(text, sys.stderr if err else sys.stdout, hang), err=err)


def prose_on_stderr(wanted: bool) -> contextlib.AbstractContextManager[object]:
    """If `wanted`, everything said and asked goes to stderr meanwhile: stdout is for the JSON that follows."""
    return contextlib.redirect_stdout(sys.stderr) if wanted else contextlib.nullcontext()


def warn(text: str) -> None:
    """Print a warning to stderr."""
    say(f"Warning: {sentence(text)}", err=True)


def fail(error: click.ClickException) -> None:
    """Print to stderr what ends the command, after the usage if it was used wrongly."""
    told = error.format_message()
    if isinstance(error, click.UsageError):
        shown = io.StringIO()
        error.show(shown)
        click.echo(shown.getvalue().removesuffix(f"Error: {told}\n"), err=True, nl=False)
    say(f"Error: {sentence(told)}", err=True)


def sentence(text: str) -> str:
    """With a capital, unless it begins with a name, and a full stop, unless it ends with a remedy after an arrow or on
    a line of its own."""
    if _ORDINARY.match(text):
        text = text[0].upper() + text[1:]
    return text if not text or "→" in text or "\n" in text or text.endswith((".", "!", "?", ":")) else f"{text}."


def visible(text: str) -> str:
    """A stranger's text, with everything that a terminal would obey written out."""
    return text if text.isprintable() else "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def wrapped(text: str, stream: TextIO, hang: int | None = None) -> str:
    """Lines stay whole in a pipe, because programs read them."""
    return "\n".join(_lines(text, hang)) if stream.isatty() else text


def _lines(text: str, hang: int | None) -> Iterator[str]:
    from textwrap import fill

    width = shutil.get_terminal_size().columns
    for line in text.split("\n"):
        if len(line) <= width or (hang is None and line[:1].isspace()):
            yield line
        else:
            yield fill(line, width, subsequent_indent=" " * (hang or 0), break_long_words=False, break_on_hyphens=False)
