"""A VAE class outside diffusers, as a substitute for ours."""

from diffusers import AutoencoderKLWan
from diffusers.models.modeling_utils import ModelMixin

assert issubclass(AutoencoderKLWan, ModelMixin)


class OtherVAE(AutoencoderKLWan):
    pass
