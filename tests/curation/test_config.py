from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from pydantic import BaseModel

from curation.config import CurationConfig, compute_config_hash, load_config
from curation.models.registry import list_model_ids
from curation.taxonomy.files import SHIPPED_FILE
from pipelines import config as command
from reprise.errors import RepriseError
from reprise.settings import get_section, list_keys, validate_settings, with_overrides


def match_message(*overrides: str, path: Path | None = None) -> str:
    with pytest.raises(RepriseError) as caught:
        load_config(path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_a_file_everything_has_its_default() -> None:
    assert load_config() == CurationConfig()


def test_overrides_win_over_the_file_and_are_yaml(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("slice: {max_length: 6}\nfilter:\n  sharpness_min: 80\nground:\n  # frames: 5\n")
    config = load_config(
        path, ["slice.max_length=8", "filter.face_count_min=null", "match.groups=[animal, human]"]
    )
    assert (config.slice.max_length, config.filter.sharpness_min) == (8, 80)
    assert config.filter.face_count_min is None
    assert config.match.groups == ["animal", "human"]
    assert config.ground.frames == 3, "a section whose keys are all commented out means its defaults"
    assert load_config(None, ["slice=null"]) == CurationConfig()
    assert load_config(None, ["filter.area_share_min=1e-2"]).filter.area_share_min == 0.01


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("filter.sharpnes_min=3", "filter.sharpness_min"),
        ("sharpness_min=3", "filter.sharpness_min"),
        ("groud.frames=2", "ground"),
        ("slice.maxlength=2", "slice.max_length"),
        ("engine.stages.ground.num_cpu=2", "engine.stages.ground.num_cpus"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(override: str, meant: str) -> None:
    assert match_message(override).endswith(f"; did you mean {meant}?")


def test_an_unknown_key_that_is_like_none_is_just_unknown() -> None:
    assert match_message("xyzzyx=1") == "the command line: unknown key xyzzyx"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("ground.frames=abc", "ground.frames: Input should be a valid integer"),
        ("ground.frames=0", "greater than or equal to 1"),
        ("slice.max_length=1", "slice: max_length must be at least twice min_length"),
        ("slice.detector=clever", "'content', 'adaptive', 'threshold' or 'none', not 'clever'"),
        ("slice.preset=fastest", "slice.preset"),
        ("slice=3", "slice is a section: write slice.KEY=VALUE"),
        ("seed.x=1", "seed: Input should be a valid integer"),
        ("filter.sharpness_min=.nan", "finite"),
        ("filter.sharpness_min=.inf", "finite"),
        (
            "filter.brightness_min=250",
            "brightness_min 250 is above brightness_max 235: nothing could be kept",
        ),
        ("crosspair.share=1.5", "less than or equal to 1"),
        ("match.groups=[animals]", "match.groups: the taxonomy has no group animals; did you mean animal?"),
        ("match.groups=[background]", "names places, which no box holds"),
        ("match.groups=[]", "null means every group"),
        ("match.taxonomy=/nowhere.yaml", "/nowhere.yaml: cannot be read"),
        ("seed", "'seed' is no override: write key=value"),
        ("=3", "is no override"),
        ("seed=[1", "the value of seed is not YAML"),
        ("seed.a.b=1", "seed"),
        ("slice.min_length.x=1", "slice.min_length: Input should be a valid number"),
    ],
)
def test_a_bad_value_is_one_line_that_names_its_key(override: str, message: str) -> None:
    assert message in match_message(override)


def test_several_mistakes_are_counted() -> None:
    assert match_message("ground.frames=0", "slice.crf=99", "seed=x").endswith("(and 2 more)")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1", "is not YAML"),
        (b"- 1\n- 2\n", "must hold `key: value` lines"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        (b"seed: two\n", "run.yaml: seed:"),
    ],
)
def test_a_file_that_is_no_config_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    assert message in match_message(path=path)
    assert "cannot read the config" in match_message(path=tmp_path / "missing.yaml")
    assert "cannot read the config" in match_message(path=tmp_path)


def test_a_config_survives_json() -> None:
    config = load_config(None, ["filter.sharpness_min=null", "engine.stages.ground.num_gpus=0.25"])
    assert validate_settings(CurationConfig, config.model_dump(mode="json"), "the manifest") == config
    assert with_overrides(config, ["seed=3"]) == config.model_copy(update={"seed": 3})


# ---- dependencies of a row -------------------------------------------------------------------------------


def find_other_value(value: Any, annotation: Any, key: str) -> Any:
    """Another value that is valid for a key."""
    special: dict[str, Any] = {
        "profile": "pretrained",
        "slice.detector": "adaptive",
        "slice.cut": "encode",
        "slice.preset": "fast",
        "slice.threshold": 3.5,
        "slice.min_length": 1.5,
        "match.taxonomy": str(SHIPPED_FILE),
        "match.groups": ["animal"],
        "filter.clip_margin_min": 0.1,
        "filter.visible_share_min": 0.5,
        "filter.flow_foreground_min": 1.0,
        "filter.flow_foreground_max": 50.0,
        "filter.flow_background_max": 10.0,
        "filter.face_count_min": 0.5,
        "filter.face_count_max": 2.0,
        "inpaint.prompts": ["{subject} on the moon"],
        "retrieve.copy_min": 0.9,
        "engine.stages": {"ground": {"num_cpus": 2}},
        "engine.address": "ray://there:1",
        "engine.num_cpus": 1,
        "engine.object_store_mb": 100,
    }
    if key in special:
        return special[key]
    if isinstance(value, bool):
        return not value
    if key == "models.size":
        return "small"
    if key.startswith("models."):
        return "some.module:Class"
    if isinstance(value, int):
        return value + 1
    return value * 0.9


def leaves(model: BaseModel, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if get_section(field.annotation):
            found |= leaves(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = find_other_value(value, field.annotation, prefix + name)
    return found


LEAVES = leaves(CurationConfig())


def test_every_key_is_known_to_the_suggestions() -> None:
    assert set(LEAVES) <= set(list_keys(CurationConfig))


@pytest.mark.parametrize("key", LEAVES)
def test_the_hash_depends_on_content_only(key: str) -> None:
    base = load_config(None, ["profile=pretrained"] if key == "models.size" else [])
    changed = with_overrides(base, [f"{key}={yaml.safe_dump(LEAVES[key], default_flow_style=True)}"])
    assert changed != base, "the key did change"
    same = compute_config_hash(changed, {}) == compute_config_hash(base, {})
    # The path of a taxonomy has no effect; its content is among the revisions. What a time-out failed is
    # tried again. The models that a size selects are among the revisions.
    ignored = ("match.taxonomy", "slice.timeout", "models.size")
    assert same == (key.split(".")[0] in ("engine", "report", "shard") or key in ignored)


def test_the_hash_depends_on_revisions_and_on_the_content_of_a_taxonomy(tmp_path: Path) -> None:
    config = CurationConfig()
    assert compute_config_hash(config, {"detector": "a@1"}) != compute_config_hash(
        config, {"detector": "a@2"}
    )
    own = tmp_path / "own.yaml"
    own.write_text("groups: {animal: {dog: [dog]}}\n")
    moved = tmp_path / "moved.yaml"
    moved.write_text("# the same\ngroups:\n  animal:\n    dog:\n    - dog\n")
    one, two = (load_config(None, [f"match.taxonomy={path}"]) for path in (own, moved))
    assert compute_config_hash(one, list_model_ids(one)) == compute_config_hash(two, list_model_ids(two))
    assert compute_config_hash(one, list_model_ids(one)) != compute_config_hash(
        config, list_model_ids(config)
    )


def test_a_taxonomys_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.yaml").write_text("groups: {animal: {dog: [dog]}}\n")
    monkeypatch.chdir(tmp_path)
    assert load_config(None, ["match.taxonomy=own.yaml"]).match.taxonomy == str(tmp_path / "own.yaml")


# ---- reprise config --------------------------------------------------------------------------------------


def test_the_printed_config_holds_every_key_and_loads_as_the_default(tmp_path: Path) -> None:
    printed = CliRunner().invoke(command.main).output
    path = tmp_path / "all.yaml"
    path.write_text(printed)
    assert load_config(path) == CurationConfig()
    assert compute_config_hash(load_config(path), {}) == compute_config_hash(CurationConfig(), {})
    assert set(list_keys(CurationConfig)) == set(_dotted(yaml.safe_load(printed)))


def test_every_printed_value_is_explained() -> None:
    for line in CliRunner().invoke(command.main).output.splitlines():
        key = line.split(":")[0].strip()
        if key != "enabled":
            assert "  # " in line, line


def _dotted(data: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for name, value in data.items():
        found.append(prefix + name)
        if isinstance(value, dict):
            found += _dotted(value, f"{prefix}{name}.")
    return found
