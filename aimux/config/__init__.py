"""config.yaml: its models, and how they are loaded. See docs/configuration.md."""

from aimux.config.instances import provider_instances
from aimux.config.load import admin_token, check_form, find_config, load_config, load_leniently, parse_config
from aimux.config.models import Config
from aimux.config.people import Admin, Group, User
from aimux.config.problems import ConfigError, Problem
from aimux.config.providers import ProviderEntry
from aimux.config.routes import ModelTarget, pattern_kind
from aimux.config.scalars import Listen, format_duration, format_size, parse_duration, parse_size
from aimux.config.show import json_schema, masked, secrets_in
from aimux.config.tls import TLS
from aimux.config.tokens import Token

__all__ = [
    "TLS",
    "Admin",
    "Config",
    "ConfigError",
    "Group",
    "Listen",
    "ModelTarget",
    "Problem",
    "ProviderEntry",
    "Token",
    "User",
    "admin_token",
    "check_form",
    "find_config",
    "format_duration",
    "format_size",
    "json_schema",
    "load_config",
    "load_leniently",
    "masked",
    "parse_config",
    "parse_duration",
    "parse_size",
    "pattern_kind",
    "provider_instances",
    "secrets_in",
]
