"""The Kubernetes manifests: valid by Kubernetes' own schemas, hardened, and in step with the program and its image."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml

from aimux.cli.main import cli
from aimux.config import check_form
from aimux.plugin.loader import load_plugins
from tests.tools import checkout, program

FOLDER = checkout() / "deploy/kubernetes"
KUSTOMIZATION: dict[str, Any] = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
MANIFESTS: dict[str, dict[str, Any]] = {
    name: yaml.safe_load((FOLDER / name).read_text()) for name in KUSTOMIZATION["resources"]
}
VERSIONS = ("1.33", kubernetes_validate.latest_version())


@pytest.fixture(scope="module")
def pod() -> dict[str, Any]:
    spec: dict[str, Any] = MANIFESTS["deployment.yaml"]["spec"]["template"]["spec"]
    return spec


def containers(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [*pod["initContainers"], *pod["containers"]]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", MANIFESTS)
def test_valid_by_the_schemas(name: str, version: str) -> None:
    kubernetes_validate.validate(MANIFESTS[name], version, strict=True)


def test_every_file_is_a_resource() -> None:
    (generated,) = KUSTOMIZATION["configMapGenerator"]
    used = {"kustomization.yaml", *generated["files"], *MANIFESTS}
    assert {path.name for path in FOLDER.glob("*.yaml")} == used


def test_kustomize_builds_it() -> None:
    command = [program("kubectl", "kubernetes-client"), "kustomize", str(FOLDER)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    assert {one["kind"] for one in built} == {"ConfigMap", *(one["kind"] for one in MANIFESTS.values())}
    # A changed configuration rolls out: its name follows its content, and the pod names it.
    (generated,) = (one for one in built if one["kind"] == "ConfigMap")
    (deployment,) = (one for one in built if one["kind"] == "Deployment")
    (config,) = (one for one in deployment["spec"]["template"]["spec"]["volumes"] if one["name"] == "config")
    assert generated["metadata"]["name"].startswith("aimux-")
    assert config["configMap"]["name"] == generated["metadata"]["name"]
    assert generated["data"] == {"config.yaml": (FOLDER / "config.yaml").read_text()}
    assert {one["metadata"].get("namespace", "aimux") for one in built} == {"aimux"}


def test_the_pod_meets_the_restricted_standard(pod: dict[str, Any]) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in containers(pod):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]


def test_selectors_meet_the_pods_labels() -> None:
    labels = MANIFESTS["deployment.yaml"]["spec"]["template"]["metadata"]["labels"]
    assert MANIFESTS["deployment.yaml"]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert MANIFESTS["service.yaml"]["spec"]["selector"].items() <= labels.items()
    assert MANIFESTS["disruption.yaml"]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert MANIFESTS["network.yaml"]["spec"]["podSelector"]["matchLabels"].items() <= labels.items()


def test_the_parts_that_name_each_other_agree(pod: dict[str, Any]) -> None:
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["config"]["configMap"]["name"] == KUSTOMIZATION["configMapGenerator"][0]["name"]
    assert volumes["secret"]["secret"]["secretName"] == MANIFESTS["secret.yaml"]["metadata"]["name"]
    assert volumes["state"]["persistentVolumeClaim"]["claimName"] == MANIFESTS["volume.yaml"]["metadata"]["name"]
    for container in containers(pod):
        assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    (port,) = pod["containers"][0]["ports"]
    assert MANIFESTS["service.yaml"]["spec"]["ports"][0]["targetPort"] == port["name"]
    assert MANIFESTS["network.yaml"]["spec"]["ingress"][0]["ports"][0]["port"] == port["name"]
    for probe in ("livenessProbe", "readinessProbe"):
        # A limit of one provider's accounts is no reason to take the others out of service.
        assert pod["containers"][0][probe]["httpGet"] == {"path": "/health", "port": port["name"]}


def test_the_configuration_is_one_that_aimux_takes(pod: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text((FOLDER / "config.yaml").read_text())
    check_form(file, environ={}, providers=load_plugins().providers)
    config = yaml.safe_load(file.read_text())
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert config["state_dir"] == mounts["state"]
    assert config["listen"] == f":{pod['containers'][0]['ports'][0]['containerPort']}"
    named = config["users"][0]["token"].removeprefix("${file:").removesuffix("}")
    assert named == f"{mounts['secret']}/alice"
    assert "alice" in MANIFESTS["secret.yaml"]["stringData"]
    # It stays in force with the image's defaults beside it.
    image = yaml.safe_load((checkout() / "deploy/container/config.yaml").read_text())
    assert {name: config[name] for name in image} == image


def test_the_arguments_are_commands_of_aimux(pod: dict[str, Any]) -> None:
    context = click.Context(cli)
    for container in containers(pod):
        name, *args = container["args"]
        command = cli.get_command(context, name)
        assert command is not None
        command.make_context(name, args)


def test_it_has_time_to_drain(pod: dict[str, Any]) -> None:
    from aimux.config import parse_config

    drain = parse_config({}, environ={"HOME": "/"}, providers={}).drain_timeout
    assert pod["terminationGracePeriodSeconds"] > drain


def test_the_secret_of_the_repository_holds_none() -> None:
    assert set(MANIFESTS["secret.yaml"]["stringData"].values()) == {""}
