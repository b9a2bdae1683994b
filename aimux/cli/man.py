"""The manual page, made from the commands' own help: `python -m aimux.cli.man > aimux.1`.

The wheel contains it (`hatch_build.py`), and nothing but click can be imported when that is built.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import click

from aimux import __version__
from aimux.cli.main import cli

if TYPE_CHECKING:
    from collections.abc import Iterator


def man_page(version: str = __version__) -> str:
    """The page in roff, for section 1. `version`: where aimux is not installed yet, as in a build."""
    context = click.Context(cli, info_name="aimux", **cli.context_settings)
    lines = [
        f'.TH AIMUX 1 "" "aimux {version}" "User Commands"',
        ".SH NAME",
        r"aimux \- one door to a team's AI accounts",
        ".SH SYNOPSIS",
        r".B aimux",
        r"[\fIOPTIONS\fR] [\fICOMMAND\fR [\fIARGS\fR]]",
        ".SH DESCRIPTION",
        *_prose(cli.help or ""),
        *_options(cli, context, ".SH OPTIONS"),
        ".SH COMMANDS",
    ]
    for name in cli.list_commands(context):
        lines += _command(cli, name, context, "aimux")
    lines += [".SH FILES", *_prose(cli.epilog or "")]
    return "\n".join(lines) + "\n"


def _command(group: click.Group, name: str, context: click.Context, path: str) -> Iterator[str]:
    """A command's section, and those of the commands below it."""
    command = group.get_command(context, name)
    assert command is not None  # the group lists only what it has
    inner, path = click.Context(command, info_name=name, parent=context), f"{path} {name}"
    usage = " ".join(filter(None, command.collect_usage_pieces(inner)))
    yield from (f".SS {_escaped(path)} {_escaped(usage)}", *_prose(command.help or ""))
    yield from _options(command, inner, ".PP")
    if isinstance(command, click.Group):
        for below in command.list_commands(inner):
            yield from _command(command, below, inner, path)


def _options(command: click.Command, context: click.Context, heading: str) -> Iterator[str]:
    yield heading
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1]:
            yield from (".TP", rf"\fB{_escaped(record[0])}\fR", _escaped(" ".join(record[1].split())))


def _prose(text: str) -> Iterator[str]:
    r"""Paragraphs; one that begins with click's `\b` keeps its lines."""
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        yield ".PP"
        if paragraph.lstrip().startswith("\b"):
            yield from (".nf", *(_escaped(line) for line in paragraph.splitlines() if line.strip() != "\b"), ".fi")
        else:
            yield _escaped(" ".join(paragraph.split()))


def _escaped(text: str) -> str:
    """Text that roff prints as it is: no line begins a request, and a hyphen can be copied."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{escaped}" if escaped.startswith((".", "'")) else escaped


if __name__ == "__main__":
    sys.stdout.write(man_page())
