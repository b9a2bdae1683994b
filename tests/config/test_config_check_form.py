"""Checking a configuration where its secrets are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from aimux.config import ConfigError, check_form
from tests.config.conftest import PROVIDERS


def test_the_form_can_be_checked_where_the_secrets_are_not(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        """
listen: ${env:WHERE}
providers: {claude: {api_key: "${cred:key}", base_url: "https://${env:HOST}/"}}
users:
  - {name: a, token: "${cred:a}"}
  - {name: b, token: "${file:/no/such}"}
  - {name: c, token_file: /no/such}
  - {name: d, token_file: /no/such}
tls: {enabled: "${env:TLS}"}
"""
    )
    check_form(path, environ={"HOME": "/h"}, providers=PROVIDERS)
    unknown = "mounts: {/x: '${env:X}'}\nmodels: {x: {provider: '${env:X}', modl: '${env:X}'}}\nlistn: ${env:X}\n"
    path.write_text(path.read_text() + unknown + "admin: {token: '${crd:x}'}\n")
    with pytest.raises(ConfigError) as caught:
        check_form(path, environ={"HOME": "/h"}, providers=PROVIDERS)
    assert [problem.where for problem in caught.value.problems] == [
        "models.x[0].modl",
        "listn",
        "admin.token",
    ]


def test_unknown_settings_of_a_provider_are_found_without_secrets(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "providers: {claude: {api_kee: '${cred:x}', api_key: '${cred:x}'}, "
        "lab: {type: '${env:X}'}, chatgpt: '${file:/x}'}"
    )
    with pytest.raises(ConfigError) as caught:
        check_form(path, environ={"HOME": "/h"}, providers=PROVIDERS)
    assert [problem.where for problem in caught.value.problems] == ["providers.claude.api_kee"]
