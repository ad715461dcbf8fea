"""The cluster files are what Ray, KubeRay and Reprise accept."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from curation.config import load_config
from curation.runner.graph import build_operators
from reprise import settings
from training.config import TrainConfig

FOLDER = Path(__file__).resolve().parents[1] / "ray_configs"
FILES = sorted(FOLDER.glob("*.yaml"))


def load(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


def clusters() -> list[dict[str, Any]]:
    jobs = [
        load(name)["spec"]["rayClusterSpec"] for name in ("kuberay-rayjob.yaml", "kuberay-rayjob-train.yaml")
    ]
    return [load("kuberay-raycluster.yaml")["spec"], *jobs]


def test_the_curation_config_is_valid_and_names_stages_that_exist() -> None:
    assert build_operators(load_config(FOLDER / "curate.yaml"))


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
    names = ("kuberay-raycluster.yaml", "kuberay-rayjob.yaml", "kuberay-rayjob-train.yaml")
    kinds = {name: load(name) for name in names}
    assert [each["kind"] for each in kinds.values()] == ["RayCluster", "RayJob", "RayJob"]
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


def test_the_training_job_requests_the_gpus_of_its_cluster() -> None:
    config = settings.load_settings(TrainConfig, FOLDER / "train.yaml")
    cluster = load("kuberay-rayjob-train.yaml")["spec"]["rayClusterSpec"]
    gpus = cpus = 0
    for group in cluster["workerGroupSpecs"]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        gpus += group["replicas"] * int(limits["nvidia.com/gpu"])
        cpus += group["replicas"] * int(limits["cpu"])
    assert config.run.workers * config.run.gpus_per_worker == gpus
    assert config.run.workers * config.run.cpus_per_worker <= cpus
    assert config.run.output.startswith("s3://"), "every node reaches it"
    assert all(task.batch % config.run.workers == 0 for task in config.tasks)


@pytest.mark.parametrize(
    ("job", "module"),
    [("kuberay-rayjob.yaml", "pipelines.curate"), ("kuberay-rayjob-train.yaml", "pipelines.train")],
)
def test_the_job_runs_an_existing_command(job: str, module: str) -> None:
    entrypoint = load(job)["spec"]["entrypoint"].split()
    assert entrypoint[:3] == ["python", "-m", module]
    command = importlib.import_module(module).main
    known = {flag for parameter in command.params for flag in parameter.opts}
    assert {part for part in entrypoint if part.startswith("--")} <= known
    assert Path(entrypoint[entrypoint.index("--config") + 1]).name in {path.name for path in FILES}
