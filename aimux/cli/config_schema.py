"""`aimux config-schema`."""

from __future__ import annotations

import json

import click


@click.command("config-schema", short_help="Print config.yaml's JSON Schema.")
def config_schema_command() -> None:
    """Print the JSON Schema of config.yaml, with the settings of the installed providers.

    Editors complete and check by it. With yaml-language-server, begin the file with
    `# yaml-language-server: $schema=aimux.schema.json`.
    """
    from aimux.config import json_schema
    from aimux.plugin.loader import load_plugins

    click.echo(json.dumps(json_schema(load_plugins().providers), indent=2, ensure_ascii=False))
