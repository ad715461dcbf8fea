"""The cluster files are what Ray, KubeRay and Reprise accept."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from curation.config import load_config
from curation.graph import operators

FOLDER = Path(__file__).resolve().parents[1] / "ray_configs"
FILES = sorted(FOLDER.glob("*.yaml"))


def load(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


def clusters() -> list[dict[str, Any]]:
    return [load("kuberay-raycluster.yaml")["spec"], load("kuberay-rayjob.yaml")["spec"]["rayClusterSpec"]]


def test_the_curation_config_is_valid_and_names_stages_that_exist() -> None:
    assert operators(load_config(FOLDER / "curate.yaml"))


def test_the_autoscaler_accepts_its_file() -> None:
    util = pytest.importorskip("ray.autoscaler._private.util")
    pytest.importorskip("jsonschema")
    config = util.prepare_config(load("cluster.yaml"))
    util.validate_config(config)
    assert config["head_node_type"] in config["available_node_types"]
    assert all(
        each["max_workers"] <= config["max_workers"] for each in config["available_node_types"].values()
    )


def test_kubernetes_objects_are_of_the_kinds_of_kuberay() -> None:
    kinds = {name: load(name) for name in ("kuberay-raycluster.yaml", "kuberay-rayjob.yaml")}
    assert [each["kind"] for each in kinds.values()] == ["RayCluster", "RayJob"]
    assert {each["apiVersion"] for each in kinds.values()} == {"ray.io/v1"}


@pytest.mark.parametrize("cluster", clusters())
def test_every_pod_has_one_container_with_bounded_memory(cluster: dict[str, Any]) -> None:
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        (container,) = group["template"]["spec"]["containers"]
        assert container["image"]
        limits, requests = container["resources"]["limits"], container["resources"]["requests"]
        assert limits["memory"] == requests["memory"], "Ray counts on what it was promised"
    names = [group["groupName"] for group in cluster["workerGroupSpecs"]]
    assert len(names) == len(set(names))
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        (volume,) = group["template"]["spec"]["volumes"]
        mounts = group["template"]["spec"]["containers"][0]["volumeMounts"]
        assert [each["name"] for each in mounts] == [volume["name"]]


def test_all_files_are_for_one_version_of_ray() -> None:
    text = "".join(path.read_text() for path in [*FILES, FOLDER / "README.md"])
    versions = re.findall(r"(?:rayproject/ray:|rayVersion: \")(\d+\.\d+\.\d+)", text)
    assert len(versions) >= 5
    assert len(set(versions)) == 1


def test_the_job_runs_a_door_that_is_there() -> None:
    entrypoint = load("kuberay-rayjob.yaml")["spec"]["entrypoint"].split()
    assert entrypoint[:3] == ["python", "-m", "pipelines.curate"]
    assert Path(entrypoint[entrypoint.index("--config") + 1]).name in {path.name for path in FILES}
