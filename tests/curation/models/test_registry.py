"""The backend of a role, its checkpoint, and the error if it is missing."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from curation.config import compute_config_hash, load_config
from curation.model_spec import ModelSpec
from curation.models import backends, catalogue, registry
from curation.models.profiles import PROFILES
from reprise.errors import RepriseError

PRETRAINED = [(backend.role, backend.name) for backend in backends.BACKENDS if backend.takes_checkpoint]


class Own:
    """A backend of one's own, with or without a spec."""

    def __init__(self, spec: ModelSpec | None = None) -> None:
        self.name, self.revision = "own", (spec and spec.revision) or "bare"


OWN = f"{__name__}:Own"


def test_the_default_profile_needs_no_checkpoint() -> None:
    assert registry.get_model_spec(load_config(), "detector") == ModelSpec(backend="classical")
    assert registry.get_model_spec(load_config(), "scorer") is None
    assert {profile for profile, _ in PROFILES} == {"classical", "pretrained", "playground"}


def test_the_pretrained_profile_takes_the_catalogues_defaults() -> None:
    config = load_config(None, ["profile=pretrained"])
    for entry in catalogue.list_published():
        if entry.is_default and not backends.is_base(entry.role, entry.name):
            assert registry.get_model_spec(config, entry.role) == catalogue.build_spec(entry)
    # What is switched off must not need its checkpoint.
    off = load_config(None, ["profile=pretrained", "track.enabled=false", "flow.enabled=false"])
    assert registry.get_model_spec(off, "flow") is registry.get_model_spec(off, "tracker") is None


@pytest.mark.parametrize("entry", catalogue.PRETRAINED, ids=lambda entry: entry.name)
def test_a_backend_loads_each_entry_of_the_catalogue(entry: catalogue.PublishedCheckpoint) -> None:
    loaders = backends.find_loaders(entry.role, entry.name)
    assert loaders or backends.is_base(entry.role, entry.name)


@pytest.mark.parametrize("backend", backends.BACKENDS, ids=lambda each: f"{each.role}-{each.name}")
def test_a_record_names_entries_of_the_catalogue(backend: backends.Backend) -> None:
    assert backends.find_backend(backend.role, backend.name) is backend, "no two of one name"
    for name in (*backend.checkpoints, *([backend.base] if backend.base else [])):
        assert catalogue.list_published(role=backend.role, name=name), name
    assert bool(backend.packages) == backend.takes_checkpoint


def test_a_name_without_a_checkpoint_gets_the_published_one() -> None:
    spec = registry.get_model_spec(load_config(None, ["models.scorer=open-clip"]), "scorer")
    assert spec == catalogue.build_spec(catalogue.list_published(role="scorer", name="clip-vit-l-14")[0])
    given = registry.get_model_spec(
        load_config(None, ["models.scorer={backend: open-clip, device: cpu}"]), "scorer"
    )
    assert given is not None
    assert spec is not None
    assert (given.device, given.checkpoint) == ("cpu", spec.checkpoint)
    own = load_config(None, ["models.scorer={backend: open-clip, checkpoint: /there}"])
    assert registry.get_model_spec(own, "scorer") == ModelSpec(backend="open-clip", checkpoint="/there")


def test_one_key_of_a_mapping_can_be_overridden() -> None:
    config = load_config(None, ["models.scorer.backend=clip-hf", "models.scorer.checkpoint=/there"])
    assert config.models.scorer == ModelSpec(backend="clip-hf", checkpoint="/there")
    assert compute_config_hash(config, {}) != compute_config_hash(
        load_config(None, ["models.scorer=clip-hf"]), {}
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("models.scorer={backend: clip-hf, checkpont: x}", "did you mean models.scorer.checkpoint"),
        ("models.scorer={checkpoint: x}", "models.scorer.backend"),
        ("models.scorer=3", "models.scorer: "),
        ("models.scorer={backend: clip-hf, batch_size: 0}", "models.scorer.batch_size"),
    ],
)
def test_a_wrong_spec_is_one_line(override: str, message: str) -> None:
    with pytest.raises(RepriseError, match=message) as caught:
        load_config(None, [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("profile=embedded", "profile: the profile embedded is now named classical"),
        ("profile=full", "profile: the profile full is now named pretrained"),
        ("models.detector=embedded", "models.detector=embedded: this backend is now named classical"),
        (
            "models.inpainter={backend: embedded}",
            "models.inpainter=embedded: this backend is now named classical",
        ),
    ],
)
def test_an_earlier_name_gets_the_new_one(override: str, message: str) -> None:
    with pytest.raises(RepriseError, match=message) as caught:
        registry.list_model_ids(load_config(None, [override]))
    assert "\n" not in str(caught.value)


def test_classical_backends_take_no_checkpoint() -> None:
    config = load_config(None, ["models.detector={backend: classical, checkpoint: x}"])
    with pytest.raises(RepriseError, match="takes no checkpoint"):
        registry.load_backend(config, "detector")


def test_a_backend_of_ones_own_gets_its_spec_where_it_has_one() -> None:
    assert registry.load_backend(load_config(None, [f"models.scorer={OWN}"]), "scorer").revision == "bare"
    mapped = load_config(None, [f"models.scorer={{backend: '{OWN}', revision: r2}}"])
    assert registry.list_model_ids(mapped)["scorer"] == "own@r2"


@pytest.mark.parametrize(("role", "name"), PRETRAINED)
def test_a_missing_package_is_one_line(role: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    with pytest.raises(
        RepriseError, match=r"needs torch.*: pip install '(reprise\[pretrained|ray\[llm)\]'"
    ) as caught:
        registry.list_model_ids(load_config(None, [f"models.{role}={name}"]))
    assert "\n" not in str(caught.value)


def test_the_error_for_a_missing_checkpoint_names_the_command_that_fetches_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REPRISE_MODELS", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr(registry, "require_packages", lambda role, spec: None)
    with pytest.raises(RepriseError, match="reprise models pull faces"):
        registry.list_model_ids(load_config(None, ["models.faces=insightface"]))


def test_revisions_come_from_the_files_without_loading_a_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "raft.pth"
    file.write_bytes(b"\x80\x02 no model at all")
    monkeypatch.setattr(registry, "require_packages", lambda role, spec: None)
    flow = f"models.flow={{backend: raft, checkpoint: {file}}}"
    found = registry.list_model_ids(load_config(None, [flow]))["flow"]
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert found == f"raft@{sha256[:12]}#sha256={sha256}"
    assert registry.split_model_id(found) == ("raft", sha256[:12], sha256)
    variator = f"models.variator={{backend: flux-redux, checkpoint: {file}, options: {{base: {file}}}}}"
    both = registry.list_model_ids(load_config(None, [variator]))["variator"]
    assert both.startswith(f"flux-redux@{sha256[:12]}+{sha256[:12]}#sha256=")


def test_rows_record_the_checkpoint_by_its_sum() -> None:
    class Loaded:
        name, revision, sha256 = "raft", "r1", "ab" * 32

    class Forgetful:
        name, revision = "raft", "r1"

    subject: Any = {"made_by": None}
    registry.record_model(subject, "flow", Loaded())
    registry.record_model(subject, "scorer", Own())
    made_by = {"flow": f"raft@r1#sha256={'ab' * 32}", "scorer": "own@bare"}
    assert json.loads(subject["made_by"]) == made_by
    assert registry.split_model_id("own@bare") == ("own", "bare", None)
    with pytest.raises(AttributeError):  # a backend of this package that loads a checkpoint must name it
        registry.record_model(subject, "flow", Forgetful())


@pytest.mark.parametrize(("role", "name"), PRETRAINED)
def test_a_backend_is_called_what_the_registry_calls_it(role: str, name: str) -> None:
    spec, record = ModelSpec(backend=name), backends.find_backend(role, name)
    assert record is not None
    try:
        registry.require_packages(role, spec)
    except RepriseError as error:
        pytest.skip(str(error))
    assert registry.import_object(record.address, role).name == name
