"""Build an export target from its name."""

from __future__ import annotations

import difflib
from importlib import import_module

from curation.export.target import ExportTarget
from reprise.errors import InputError

# name -> "module:class". A module is imported only when its target is used.
TARGETS = {
    "h3-musubi": "h3_musubi:H3MusubiTarget",
    "h3-diffsynth": "h3_diffsynth:H3DiffSynthTarget",
    "diffsynth-vace": "diffsynth_vace:DiffSynthVaceTarget",
    "videox-fun": "videox_fun:VideoXFunTarget",
    "kaleido": "kaleido:KaleidoTarget",
    "energon": "energon:EnergonTarget",
    "webdataset": "webdataset:WebDatasetTarget",
    "huggingface": "huggingface:HuggingFaceTarget",
    "ai-toolkit": "ai_toolkit:AiToolkitTarget",
    "simpletuner": "simpletuner:SimpleTunerTarget",
    "diffusion-pipe": "diffusion_pipe:DiffusionPipeTarget",
    "finetrainers": "finetrainers:FinetrainersTarget",
    "ltx": "ltx:LtxTarget",
    "automodel": "automodel:AutomodelTarget",
    "opens2v": "opens2v:OpenS2VTarget",
    "customdit": "customdit:CustoMDiTTarget",
}


def build_target(name: str) -> ExportTarget:
    """Build the target with this name.

    Raises:
        InputError: no target has this name. The message suggests the nearest one.
    """
    if name not in TARGETS:
        near = difflib.get_close_matches(name, TARGETS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"targets are {', '.join(TARGETS)}"
        raise InputError(f"unknown export target {name}: {hint}")
    module, _, attribute = TARGETS[name].partition(":")
    target: ExportTarget = getattr(import_module(f"curation.export.targets.{module}"), attribute)()
    return target
