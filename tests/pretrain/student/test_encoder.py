import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from caev2.pretrain.student.encoder import Encoder
from caev2.pretrain.student.model import build
from caev2.pretrain.student.sizes import SIZES, ModelSettings

SETTINGS = ModelSettings(
    image_px=32, patch_px=8, width=24, depth=3, heads=4, regressor_width=24, regressor_depth=1,
    regressor_heads=4, target_width=8, drop_path=0.5,
)  # fmt: skip


@pytest.fixture
def encoder() -> Encoder:
    encoder = build(SETTINGS, seed=3).encoder
    generator = torch.Generator().manual_seed(1)
    for name, parameter in encoder.named_parameters():  # away from the zeros and ones of a fresh model
        if name != "pos_embed":
            parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    for block in encoder.blocks:
        block.attn.qkv.bias.data.mul_(block.attn.bias_mask)
    return encoder.eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def test_a_stock_timm_model_loads_the_weights_and_gives_the_same_features(encoder, images):
    stock = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=4, init_values=0.1, num_classes=0
    ).eval()
    stock.load_state_dict(encoder.state_dict(), strict=True)
    torch.testing.assert_close(encoder(images), stock.forward_features(images), atol=1e-5, rtol=1e-5)


def test_tiny_is_timms_tiny_with_twelve_heads():
    encoder = build(SIZES["tiny"], seed=0).encoder.eval()
    stock = timm.create_model("vit_tiny_patch16_224", num_classes=0, num_heads=12, init_values=0.1).eval()
    stock.load_state_dict(encoder.state_dict(), strict=True)
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(encoder(images), stock.forward_features(images), atol=1e-5, rtol=1e-5)


def test_hidden_patches_change_nothing(encoder, images):
    visible = torch.tensor([[0, 3, 5, 9, 15]] * 5)
    blank = images.clone()
    for patch in set(range(16)) - {0, 3, 5, 9, 15}:
        row, column = divmod(patch, 4)
        blank[:, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 7.0
    assert torch.equal(encoder(images, visible), encoder(blank, visible))


def test_all_patches_visible_is_no_mask_at_all(encoder, images):
    everything = torch.arange(16).expand(5, -1)
    assert torch.equal(encoder(images, everything), encoder(images))


def test_patches_are_taken_with_their_positions(encoder, images):
    """Without positions the encoder is a set function; with them, latents follow their patch in any order."""
    order = torch.randperm(16, generator=torch.Generator().manual_seed(5))
    shuffled = encoder(images, order.expand(5, -1))
    torch.testing.assert_close(shuffled[:, 1:], encoder(images)[:, 1:][:, order], atol=1e-5, rtol=1e-5)


def test_the_key_bias_stays_zero_with_a_gradient_of_zero(encoder, images):
    encoder.train()
    encoder(images).square().sum().backward()
    for block in encoder.blocks:
        query, key, value = block.attn.qkv.bias.grad.chunk(3)
        assert torch.count_nonzero(key) == 0
        assert query.abs().max() > 0
        assert value.abs().max() > 0


def test_a_key_bias_would_change_nothing_even_if_it_were_there(encoder, images):
    before = encoder(images)
    encoder.blocks[0].attn.qkv.bias.data[24:48] = 3.0
    assert torch.equal(encoder(images), before)


def test_a_dropped_branch_is_skipped_and_a_kept_one_scaled_up(encoder, images):
    """With every branch of the last block dropped or kept, per image, the block is computed by hand."""
    keep = torch.ones(6, 5, dtype=torch.bool)
    keep[4:, :2] = False
    inner = encoder.patch_embed(images) + encoder.pos_embed[:, 1:]
    tokens = torch.cat([encoder.cls_token.expand(5, -1, -1), inner], dim=1)
    tokens = encoder.blocks[0](tokens)
    middle = encoder.blocks[1]
    tokens = tokens + middle.ls1.gamma * middle.attn(middle.norm1(tokens)) / 0.75
    tokens = tokens + middle.ls2.gamma * middle.mlp(middle.norm2(tokens)) / 0.75
    last = encoder.blocks[2]
    kept = tokens[2:]
    kept = kept + last.ls1.gamma * last.attn(last.norm1(kept)) / 0.5
    kept = kept + last.ls2.gamma * last.mlp(last.norm2(kept)) / 0.5
    expected = encoder.norm(torch.cat([tokens[:2], kept]))
    torch.testing.assert_close(encoder(images, keep=keep), expected, atol=1e-5, rtol=1e-5)
