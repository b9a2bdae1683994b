"""The Kubernetes manifests: valid by Kubernetes' own schemas, hardened, and in step with the program and its image."""

from __future__ import annotations

import inspect
import re
import subprocess
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner

from aimux.accounts.http import ControlHttp
from aimux.cli.main import cli
from aimux.config import check_form, load_config, parse_config
from aimux.plugin.loader import load_plugins
from tests.tools import checkout, program

FOLDER = checkout() / "deploy/kubernetes"
KUSTOMIZATION: dict[str, Any] = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
MANIFESTS: dict[str, dict[str, Any]] = {
    name: yaml.safe_load((FOLDER / name).read_text()) for name in KUSTOMIZATION["resources"]
}
SECRETS = [manifest for manifest in MANIFESTS.values() if manifest["kind"] == "Secret"]
DEFAULTS = parse_config({}, environ={"HOME": "/"}, providers={})
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


def kustomized(folder: str) -> list[dict[str, Any]]:
    command = [program("kubectl", "kubernetes-client"), "kustomize", str(FOLDER.parent / folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def one(built: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = (each for each in built if each["kind"] == kind)
    return found


def test_kustomize_builds_it() -> None:
    built = kustomized("kubernetes")
    assert {each["kind"] for each in built} == {"ConfigMap", *(each["kind"] for each in MANIFESTS.values())}
    # A changed configuration rolls out: its name follows its content, and the pod names it.
    generated = one(built, "ConfigMap")
    volumes = one(built, "Deployment")["spec"]["template"]["spec"]["volumes"]
    (config,) = (each for each in volumes if each["name"] == "config")
    assert generated["metadata"]["name"].startswith("aimux-")
    assert config["configMap"]["name"] == generated["metadata"]["name"]
    assert generated["data"] == {"config.yaml": (FOLDER / "config.yaml").read_text()}
    assert {each["metadata"].get("namespace", "aimux") for each in built} == {"aimux"}


def test_two_replicas_on_postgresql_are_updated_one_after_the_other(tmp_path: Path) -> None:
    built = kustomized("kubernetes-postgresql")
    for manifest in built:
        kubernetes_validate.validate(manifest, VERSIONS[0], strict=True)
    spec = one(built, "Deployment")["spec"]
    pod = spec["template"]["spec"]
    assert spec["replicas"] == 2
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    # No volume that only one of them can have; the logins are in the database, for which both containers have the key.
    assert "PersistentVolumeClaim" not in {each["kind"] for each in built}
    (state,) = (volume for volume in pod["volumes"] if volume["name"] == "state")
    assert "emptyDir" in state
    for container in containers(pod):
        assert container["envFrom"] == [{"secretRef": {"name": "aimux-database"}}]
    allowed = [port["port"] for rule in one(built, "NetworkPolicy")["spec"]["egress"] for port in rule["ports"]]
    assert allowed == [53, 53, 443, 5432]
    # What the file's head says is what aimux takes.
    head = (FOLDER.parent / "kubernetes-postgresql/kustomization.yaml").read_text()
    told = dict(re.findall(r"--from-literal=(AIMUX_\w+)='?([^' \n]+)", head))
    environ = {"HOME": str(tmp_path), **told, "AIMUX_DATABASE__ENCRYPTION_KEY": "0" * 64}
    assert load_config(None, environ=environ, providers={}).database.url is not None


def test_secrets_can_come_from_a_vault() -> None:
    built = kustomized("kubernetes-external-secrets")
    assert "Secret" not in {each["kind"] for each in built}
    filled = {
        each["spec"]["target"]["name"]: {entry["secretKey"] for entry in each["spec"]["data"]}
        for each in built
        if each["kind"] == "ExternalSecret"
    }
    assert filled == {each["metadata"]["name"]: set(each["stringData"]) for each in SECRETS}


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


def test_its_memory_fits_the_largest_bodies(pod: dict[str, Any]) -> None:
    (container,) = pod["containers"]
    limit = container["resources"]["limits"]["memory"]
    assert int(limit.removesuffix("Gi")) << 30 >= 2 * 16 * DEFAULTS.max_body_size


def test_the_network_is_as_narrow_as_can_be() -> None:
    policy = MANIFESTS["network.yaml"]["spec"]
    (entry,) = policy["ingress"]
    # Of other namespaces only the pods that have to: a peer with a namespace alone would be all of it.
    assert all({"namespaceSelector", "podSelector"} == set(peer) for peer in entry["from"])
    dns, https = policy["egress"]
    assert dns["to"][0]["podSelector"]["matchLabels"] == {"k8s-app": "kube-dns"}
    assert [port["port"] for port in https["ports"]] == [443]
    inside = [
        "10.1.2.3",
        "172.20.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "127.0.0.1",
        "fd00::1",
        "fe80::1",
    ]
    for address, reached in [*((text, False) for text in inside), ("160.79.104.10", True), ("2607:6bc0::10", True)]:
        assert any(_holds(peer["ipBlock"], address) for peer in https["to"]) == reached, address


def _holds(block: dict[str, Any], address: str) -> bool:
    """Whether a rule's block has this address."""
    found = ip_address(address)
    return found in ip_network(block["cidr"]) and not any(found in ip_network(part) for part in block["except"])


def test_selectors_meet_the_pods_labels() -> None:
    labels = MANIFESTS["deployment.yaml"]["spec"]["template"]["metadata"]["labels"]
    assert MANIFESTS["deployment.yaml"]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert MANIFESTS["service.yaml"]["spec"]["selector"].items() <= labels.items()
    assert MANIFESTS["disruption.yaml"]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert MANIFESTS["network.yaml"]["spec"]["podSelector"]["matchLabels"].items() <= labels.items()


def test_the_parts_that_name_each_other_agree(pod: dict[str, Any]) -> None:
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["config"]["configMap"]["name"] == KUSTOMIZATION["configMapGenerator"][0]["name"]
    assert volumes["users"]["secret"]["secretName"] == MANIFESTS["secret.yaml"]["metadata"]["name"]
    assert volumes["login"]["secret"]["secretName"] == MANIFESTS["login.yaml"]["metadata"]["name"]
    assert volumes["state"]["persistentVolumeClaim"]["claimName"] == MANIFESTS["volume.yaml"]["metadata"]["name"]
    # Each sees what it needs: the login goes to who seeds it, and the users' tokens to who serves.
    (seed,), (serve,) = pod["initContainers"], pod["containers"]
    assert {mount["name"] for mount in seed["volumeMounts"]} == set(volumes) - {"users"}
    assert {mount["name"] for mount in serve["volumeMounts"]} == set(volumes) - {"login"}
    (port,) = pod["containers"][0]["ports"]
    assert MANIFESTS["service.yaml"]["spec"]["ports"][0]["targetPort"] == port["name"]
    assert MANIFESTS["network.yaml"]["spec"]["ingress"][0]["ports"][0]["port"] == port["name"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
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
    assert named == f"{mounts['users']}/alice"
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


def test_the_login_is_where_the_init_container_looks(
    pod: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has none of the users' tokens, which its configuration names."""
    (seed,) = pod["initContainers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in seed["volumeMounts"]}
    assert seed["args"][1:] == [f"claude={mounts['login']}/claude.json"]
    assert list(MANIFESTS["login.yaml"]["stringData"]) == ["claude.json"]
    (tmp_path / "claude.json").write_text('{"api_key": "sk-ant-api03-of-a-test"}')
    monkeypatch.setenv("AIMUX_STATE_DIR", str(tmp_path / "state"))
    args = ["seed", "--config", str(FOLDER / "config.yaml"), f"claude={tmp_path}/claude.json"]
    done = CliRunner().invoke(cli, args)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "state/claude/.credentials.json").exists()


def test_it_has_time_to_drain_and_then_to_end_a_renewal(pod: dict[str, Any]) -> None:
    renewal = inspect.signature(ControlHttp.request).parameters["timeout"].default
    assert pod["terminationGracePeriodSeconds"] > DEFAULTS.drain_timeout + renewal + 5, "and what a preStop takes"


@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: secret["metadata"]["name"])
def test_the_secrets_of_the_repository_hold_none(secret: dict[str, Any]) -> None:
    assert set(secret["stringData"].values()) == {""}
