"""The class token's attention, against what the block itself computes."""

import pytest
import torch

from caev2.eval.pictures.attention import class_attention, weights_of_first
from caev2.pretrain.student.model import build
from caev2.pretrain.student.sizes import ModelSettings

SETTINGS = ModelSettings(image_px=32, patch_px=8, width=24, depth=2, heads=2, regressor_width=24, regressor_depth=1)


@pytest.fixture
def encoder():
    encoder = build(SETTINGS, seed=1).encoder.eval()
    for parameter in encoder.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
    return encoder


def test_weights_give_back_what_the_fused_kernel_made_of_the_class_token(encoder):
    """Values weighted by them, through the output map, are the first row of the block's own attention."""
    attention = encoder.blocks[1].attn
    tokens = torch.randn(3, 17, 24, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        weights = weights_of_first(attention, tokens)
        value = (tokens @ attention.qkv.weight[48:].T + attention.qkv.bias[48:]).unflatten(2, (2, 12))
        gathered = torch.einsum("iht,ithc->ihc", weights, value).flatten(1)
        assert torch.allclose(attention.proj(gathered), attention(tokens)[:, 0], atol=1e-5)


@pytest.mark.parametrize("block", [0, 1, -1])
def test_every_head_spreads_one_over_all_tokens(encoder, block):
    with torch.inference_mode():
        weights = class_attention(encoder, torch.randn(2, 3, 32, 32), block)
    assert weights.shape == (2, 2, 17)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 2), atol=1e-6)
    assert bool((weights >= 0).all())


def test_looking_leaves_the_encoder_as_it_was(encoder):
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        before = encoder(images)
        class_attention(encoder, images)
        assert torch.equal(encoder(images), before)
    assert not encoder.blocks[-1].attn._forward_pre_hooks


def test_the_last_block_is_looked_at(encoder):
    images = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        before = class_attention(encoder, images)
        encoder.blocks[1].attn.qkv.weight.mul_(3)
        assert not torch.allclose(class_attention(encoder, images), before, atol=1e-3)
