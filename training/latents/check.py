"""Check that latents fit the model to train, before any weights are loaded."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc

from reprise.errors import RepriseError
from training.config import ModelConfig
from training.latents.encoders import hash_model_parts
from training.latents.store import Latents
from training.models.components import locate_part, read_config, read_tokenizer_limit
from training.models.family import Family


def check_latents(latents: Latents, family: Family, model: ModelConfig) -> None:
    """Compare the model that made the latents with the model to train.

    Raises:
        RepriseError: the family, the VAE, or the width or length of the text differs; the model cannot take a
            size; or a reference is larger than its video.
    """
    manifest, where = latents.manifest, latents.folder.uri
    hint = "encode the dataset with the model that is trained"
    if manifest.model.family != family.name:
        raise RepriseError(
            f"the latents in {where} are of a {manifest.model.family} model, not {family.name}: {hint}"
        )
    made = manifest.latents.temporal, manifest.latents.spatial
    here = family.temporal_scale, family.spatial_scale
    if made != here:
        raise RepriseError(
            f"the latents in {where} hold {made[0]} frames and {made[1]} px each, the model's {here[0]} and "
            f"{here[1]}: {hint}"
        )
    transformer = read_config(model.path, model.revision, "transformer")
    for name, stored, wanted in (
        ("channels", manifest.latents.channels, transformer.get("in_channels")),
        ("text width", manifest.text.width, transformer.get("text_dim", transformer.get("text_embed_dim"))),
    ):
        if wanted is not None and stored != wanted:
            raise RepriseError(f"{name} of the latents in {where} is {stored}, the model's {wanted}: {hint}")
    # Without a tokenizer the folder has only a transformer, which cannot generate. Then there is no limit.
    limit = read_tokenizer_limit(model.path, model.revision)
    wanted = family.get_text_length(transformer, limit)
    if limit is not None and manifest.text.length != wanted:
        raise RepriseError(
            f"captions of the latents in {where} are padded to {manifest.text.length} tokens, the model's "
            f"prompts to {wanted}: {hint}"
        )
    if manifest.model.vae and locate_part(model.path, model.revision, "vae") is not None:
        found = hash_model_parts(model.path, model.revision, "vae")
        if found != manifest.model.vae:
            raise RepriseError(
                f"the latents in {where} were made with another VAE ({manifest.model.vae[:12]}, "
                f"the model's is {found[:12]}): {hint}"
            )
    _check_sizes(latents, family)


def _check_sizes(latents: Latents, family: Family) -> None:
    records, where = latents.records, latents.folder.uri
    odd = np.flatnonzero((records.sizes % np.array(family.patch)).any(axis=1))
    if len(odd):
        record = records[int(odd[0])]
        size = "x".join(str(side) for side in record.size)
        raise RepriseError(
            f"{record.sample_id} in {where}: {size} latents are no whole patches of {family.patch}"
        )
    subjects = records.table["subjects"]
    row_of_subject = np.asarray(pc.list_parent_indices(subjects))
    references = pc.struct_field(pc.list_flatten(subjects), "references")
    rows = row_of_subject[np.asarray(pc.list_parent_indices(references))]
    flat = pc.list_flatten(references)
    for side, (name, patch) in enumerate((("height", family.patch[1]), ("width", family.patch[2])), start=1):
        values = np.asarray(pc.struct_field(flat, name))
        wrong = np.flatnonzero((values > records.sizes[rows, side]) | (values % patch != 0))
        if len(wrong):
            record = records[int(rows[wrong[0]])]
            raise RepriseError(
                f"{record.sample_id} in {where} has a reference of {name} {values[wrong[0]]}, its video "
                f"{record.size[side]} (latent pixels): references are no larger and of whole patches"
            )
