"""The compose file is whole: what it mounts exists, and its nodes have a configuration that production accepts."""

import re
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from haulcast import config

from .promql import DEPLOY

COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: Mapping[str, dict[str, Any]] = COMPOSE["services"]
NODES = [name for name in SERVICES if name.startswith("node")]
EXAMPLE = dict(re.findall(r"^([A-Z_]+)=(.*)$", (DEPLOY / ".env.example").read_text(), re.MULTILINE))
EVERY_SERVICE = pytest.mark.parametrize("name", SERVICES)
_VARIABLE = re.compile(r"\$\{([A-Z_]+)(?:-|:\?[^}]*)\}")


@EVERY_SERVICE
def test_images_are_pinned(name: str) -> None:
    assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+(\.\d+)?(-[a-z]+)?", SERVICES[name]["image"])


@EVERY_SERVICE
def test_what_is_mounted_exists(name: str) -> None:
    for volume in SERVICES[name].get("volumes", ()):
        source = volume.partition(":")[0]
        assert (DEPLOY / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
        assert not source.startswith(".") or volume.endswith(":ro")


@EVERY_SERVICE
def test_ports_are_published_on_this_machine_only(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", ()))


@EVERY_SERVICE
def test_services_are_bounded_and_come_back(name: str) -> None:
    service = SERVICES[name]
    assert service["mem_limit"]
    assert service["restart"] == ("on-failure:5" if name == "migrate" else "unless-stopped")
    assert "healthcheck" in service or name in NODES, "the image of the nodes has its own"


@EVERY_SERVICE
def test_what_a_service_waits_for_exists(name: str) -> None:
    assert set(SERVICES[name].get("depends_on", ())) <= set(SERVICES)


def test_every_variable_is_in_the_example_and_the_other_way_round() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    assert set(_VARIABLE.findall(text)) == set(EXAMPLE)
    assert text.count("${") == len(_VARIABLE.findall(text))


@pytest.mark.parametrize("name", ["migrate", *NODES])
def test_nodes_have_a_configuration_that_production_accepts(name: str) -> None:
    environment = {key: _filled(value) for key, value in SERVICES[name]["environment"].items()}
    loaded = config.load(environment)
    assert loaded.environment is config.Environment.PRODUCTION
    assert loaded.clustered
    assert len(loaded.keys) == 1


def test_nodes_start_after_the_migration() -> None:
    assert SERVICES["migrate"]["command"] == ["migrate"]
    for node in NODES:
        assert SERVICES[node]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


def test_prometheus_scrapes_every_node() -> None:
    prometheus = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    (job,) = (job for job in prometheus["scrape_configs"] if job["job_name"] == "haulcast")
    (file,) = job["file_sd_configs"][0]["files"]
    (group,) = yaml.safe_load((DEPLOY / "prometheus" / file).read_text())
    assert group["targets"] == [f"{node}:8080" for node in NODES]


def test_every_link_of_the_readme_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)", (DEPLOY / "README.md").read_text())
    assert links
    assert [link for link in links if not (DEPLOY / link).exists()] == []


def _filled(value: str) -> str:
    return _VARIABLE.sub(lambda found: EXAMPLE[found[1]], value)
