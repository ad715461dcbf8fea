"""A VAE class that is not diffusers' own, as a stand-in for ours."""

from diffusers import AutoencoderKLWan
from diffusers.models.modeling_utils import ModelMixin

assert issubclass(AutoencoderKLWan, ModelMixin)


class OtherVAE(AutoencoderKLWan):
    pass
