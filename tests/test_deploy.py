"""The examples of deployments name paths, ports, options and times that the server has."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from fasttune.cli import app
from fasttune.serving.guard import OPEN
from fasttune.serving.server import DRAIN_SECONDS, TOKEN

DEPLOY = Path(__file__).parents[1] / "examples" / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()


def commands() -> dict[str, Any]:
    """What the Dockerfile says, by instruction."""
    lines = DOCKERFILE.replace("\\\n", " ").splitlines()
    found: dict[str, list[str]] = {}
    for name, _, rest in (line.partition(" ") for line in lines if line and not line.startswith("#")):
        found.setdefault(name, []).append(rest)
    return found


def options_of(words: list[str]) -> set[str]:
    return {word for word in words if word.startswith("--")}


def test_all_options_exist() -> None:
    known = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "200"}).stdout
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["fasttune"]
    container = deployment()["spec"]["template"]["spec"]["containers"][0]
    words = [json.loads(commands()["ENTRYPOINT"][0]), compose["entrypoint"], compose["command"], container["args"]]
    for option in set().union(*map(options_of, words)):
        assert option in known
    assert words[0][:2] == words[1][:2] == ["fasttune", "serve"]


def deployment() -> Any:
    return next(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))


def test_kubernetes() -> None:
    _, service = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
    pod = deployment()["spec"]["template"]
    container = pod["spec"]["containers"][0]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] in OPEN
    assert pod["spec"]["terminationGracePeriodSeconds"] > DRAIN_SECONDS
    assert container["env"][0]["name"] == TOKEN
    assert service["spec"]["selector"] == pod["metadata"]["labels"] == deployment()["spec"]["selector"]["matchLabels"]
    port = container["ports"][0]
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    entrypoint = json.loads(commands()["ENTRYPOINT"][0])
    assert str(port["containerPort"]) == entrypoint[entrypoint.index("--port") + 1] == commands()["EXPOSE"][0]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert entrypoint[2] in mounts
    assert str(pod["spec"]["securityContext"]["runAsUser"]) == commands()["USER"][0]


def test_compose() -> None:
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["fasttune"]
    assert TOKEN in service["environment"]
    assert int(service["stop_grace_period"].rstrip("s")) > DRAIN_SECONDS
    assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).resolve() == DEPLOY / "Dockerfile"
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_the_image_has_what_it_copies() -> None:
    root = DEPLOY.parents[1]
    kept = re.findall(r"^!(.+)$", (root / ".dockerignore").read_text(), re.MULTILINE)
    for line in commands()["COPY"]:
        for name in line.split()[:-1]:
            assert (root / name).exists() and name in kept
