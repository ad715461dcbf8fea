from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from curation import doctor
from curation.models import registry
from curation.models.classical import faces
from curation.models.readiness import list_profile_gaps
from pipelines.doctor import main


def run_doctor(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, arguments)
    return result.exit_code, result.output


def as_json() -> tuple[int, dict[str, Any]]:
    code, output = run_doctor("--json")
    return code, json.loads(output)


def test_this_machine_can_run_the_classical_profile() -> None:
    code, found = as_json()
    assert (code, found["missing"], found["profiles"]["classical"]) == (0, [], True)
    assert found["ffmpeg"]["encoders"] == {"libx264": True}
    assert found["ffmpeg"]["decoders"]["h264"]
    assert all(found["opencv"]["parts"].values())
    assert len(found["opencv"]["parts"]) == 6
    assert found["taxonomy"]["categories"] >= 100
    assert found["system"]["memory_gb"] > 0
    assert set(found["models"]["packages"]) == set(doctor.MODEL_PACKAGES)


def test_it_ends_with_the_profile_it_can_run() -> None:
    code, output = run_doctor()
    assert code == 0
    profiles = [line.split() for line in output.splitlines() if line.startswith("profile ")]
    assert profiles[0] == ["profile", "classical:", "yes"]
    assert [" ".join(profile[1:]).partition(":")[0] for profile in profiles] == list(as_json()[1]["profiles"])
    assert list(as_json()[1]["profiles"]) == [
        "classical",
        "pretrained models.size=small",
        "pretrained models.size=base",
        "pretrained",
        "playground",
    ]
    assert "libx264 yes" in output


def test_it_prints_what_a_profile_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REPRISE_MODELS", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr(registry, "list_missing_packages", lambda record: [*record.packages[:1]])
    code, output = run_doctor()
    assert code == 0
    lines = {line[9:].partition(" ")[0]: line for line in output.splitlines() if line.startswith("profile ")}
    small = next(line for line in output.splitlines() if "models.size=small:" in line)
    assert "; 7 checkpoints (" in small and "; 1.67 GB): reprise models pull --size small" in small
    assert lines["classical:"].endswith("yes")
    assert "no, lacks torch: pip install 'reprise[pretrained]'; 11 checkpoints" in lines["pretrained:"]
    assert "reprise models pull" in lines["pretrained:"]
    assert lines["playground:"].endswith("no, lacks torch: pip install 'reprise[pretrained]'")


def test_too_little_memory_is_a_gap_and_a_gpu_fills_it() -> None:
    def memory_gaps(memory_gb: float, gpu_memory_gb: tuple[float, ...] = ()) -> list[str]:
        gaps = list_profile_gaps("pretrained", memory_gb=memory_gb, gpu_memory_gb=gpu_memory_gb)
        return [gap for gap in gaps if gap.startswith("memory for")]

    assert memory_gaps(24)[0] == "memory for the inpainter: its weights have 34 GB, this machine has 24"
    assert len(memory_gaps(24)) == 2, "inpainter, and variator with its base"
    assert memory_gaps(24, (80,)) == memory_gaps(80) == []


def test_what_is_missing_is_one_line_each_and_the_exit_status_is_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(name: str) -> None:
        raise FileNotFoundError(f"no cascade in {name}")

    monkeypatch.setattr(faces, "_load_cascade", gone)
    monkeypatch.setattr(doctor, "ENCODERS", ("libx264", "libnothing"))
    code, output = run_doctor()
    assert code == 1
    lines = [line for line in output.splitlines() if line.startswith("missing")]
    assert len(lines) == 6
    assert any("encoder libnothing" in line for line in lines)
    assert all("pip" in line or "PyPI" in line for line in lines)
    profiles = [line for line in output.splitlines() if line.startswith("profile ")]
    assert len(profiles) == 5
    assert all(line.endswith(": no") for line in profiles)


def test_a_broken_part_does_not_hide_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(section: doctor.MachineSection) -> None:
        raise OSError("libGL.so.1: cannot open\nshared object")

    monkeypatch.setattr(doctor, "_check_opencv", broken)
    code, found = as_json()
    assert code == 1
    assert found["missing"] == ["opencv: OSError: libGL.so.1: cannot open shared object"]
    assert found["taxonomy"]["names"] >= 800


def test_secrets_are_never_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-to-be-shown")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://me:not-to-be-shown@127.0.0.1:9000")
    for arguments in ((), ("--json",)):
        output = run_doctor(*arguments)[1]
        assert "AKIDEXAMPLE" not in output
        assert "not-to-be-shown" not in output
        assert "http://...@127.0.0.1:9000" in output
    assert as_json()[1]["s3"]["credentials"] is True


def test_missing_credentials_are_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in doctor.CREDENTIAL_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert as_json()[1]["s3"]["credentials"] is False


def test_checkpoints_are_listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REPRISE_MODELS", str(tmp_path))
    (tmp_path / "sam").mkdir()
    for number in range(22):
        (tmp_path / "sam" / f"{number:02d}.pth").write_bytes(b"x")
    found = as_json()[1]["models"]
    assert found["checkpoints"] == str(tmp_path)
    assert found["files"][0] == "sam/00.pth (0.00 GB)"
    assert (len(found["files"]), found["more_files"]) == (20, 2)
    monkeypatch.setenv("REPRISE_MODELS", str(tmp_path / "nowhere"))
    assert as_json()[1]["models"]["files"] == []
