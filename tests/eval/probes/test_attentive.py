"""The attentive probe: the same attention as torch computes, and it finds the patch that decides."""

import numpy as np
import pytest
import torch
from torch.nn.functional import multi_head_attention_forward

from caev2.errors import CheckpointError, ConfigError, SourceError
from caev2.eval.probes.attentive import AttentiveHead, AttentivePooling, AttentiveSettings, attentive_probe
from caev2.eval.probes.linear import linear_probe
from caev2.eval.trunk import normalise_tokens

QUICK = AttentiveSettings(epochs=20, warmup_epochs=2.0, batch_size=64, lrs=(0.2,))


def one_patch_decides(images: int, *, patches: int = 24, width: int = 32, classes: int = 4, seed: int = 0):
    """Noise in all patches; one of them, marked by a direction of its own, points to the class."""
    random = np.random.default_rng(seed)
    tokens = random.normal(size=(images, 1 + patches, width))
    labels = random.integers(0, classes, images)
    place = random.integers(1, 1 + patches, images)
    tokens[np.arange(images), place, 0] += 8
    tokens[np.arange(images), place, 1 + labels] += 4
    return torch.from_numpy(tokens).half(), torch.from_numpy(labels)


def test_attention_finds_the_patch_that_decides_where_a_mean_drowns_it():
    tokens, labels = one_patch_decides(1600)
    train, test = tokens[:1200], tokens[1200:]
    found = attentive_probe(train, labels[:1200], test, classes=4, settings=QUICK)
    means = {"mean": tokens.float().mean(1)}
    mean = linear_probe({"mean": means["mean"][:1200]}, labels[:1200], {"mean": means["mean"][1200:]}, classes=4)
    right = [float((one.predictions == labels[1200:]).double().mean()) for one in (found, mean)]
    assert right[0] > 0.9
    assert right[1] < 0.7


@pytest.mark.parametrize("heads", [1, 4])
def test_the_short_cut_is_the_attention_of_torch(heads):
    torch.manual_seed(heads)
    pooling = AttentivePooling(16, heads).double()
    for parameter in pooling.parameters():
        torch.nn.init.normal_(parameter)
    tokens = torch.randn(3, 7, 16, dtype=torch.float64)
    key, value = pooling.norm_key(tokens), pooling.norm_value(tokens)
    query = pooling.norm_query(pooling.query_token).expand(1, 3, -1)
    layers = pooling.query, pooling.key, pooling.value
    theirs, _ = multi_head_attention_forward(
        query, key.transpose(0, 1), value.transpose(0, 1), 16, heads, None,
        torch.cat([layer.bias for layer in layers]), None, None, False, 0.0, pooling.out.weight, pooling.out.bias,
        use_separate_proj_weight=True, q_proj_weight=pooling.query.weight, k_proj_weight=pooling.key.weight,
        v_proj_weight=pooling.value.weight,
    )  # fmt: skip
    normalised = torch.nn.functional.layer_norm(tokens, (16,), eps=pooling.norm_key.eps)
    torch.testing.assert_close(pooling(normalised), theirs[0])


def test_a_fresh_query_attends_to_all_tokens_alike_and_learns():
    head = AttentiveHead(8, 3, torch.Generator().manual_seed(0))
    tokens = torch.randn(5, 6, 8, generator=torch.Generator().manual_seed(1))
    pooling = head.pooling
    mean = pooling.out(pooling.value(normalise_tokens(tokens).mean(1)))
    torch.testing.assert_close(pooling(normalise_tokens(tokens)), mean)
    head(tokens)[:, 0].square().sum().backward()
    assert pooling.query_token.grad.norm() > 0


def test_images_are_judged_one_by_one():
    """In evaluation mode the batch norm knows running statistics only: neighbours in a batch change nothing."""
    tokens, labels = one_patch_decides(300)
    options = {"classes": 4, "settings": QUICK}
    whole = attentive_probe(tokens[:200], labels[:200], tokens[200:], **options)
    alone = attentive_probe(tokens[:200], labels[:200], tokens[250:251], **options)
    assert whole.predictions[50] == alone.predictions[0]


def test_the_same_seed_gives_the_same_bits_whatever_the_global_generator():
    tokens, labels = one_patch_decides(200)
    settings = AttentiveSettings(epochs=2, batch_size=32, lrs=(0.1, 0.01))
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        found.append(attentive_probe(tokens, labels, tokens, classes=4, settings=settings, seed=5))
    assert found[0].held_out_accuracy == found[1].held_out_accuracy
    assert found[0].final_loss == found[1].final_loss
    other = attentive_probe(tokens, labels, tokens, classes=4, settings=settings, seed=6)
    assert other.final_loss != found[0].final_loss


def test_the_learning_rate_is_chosen_on_held_out_train_images():
    tokens, labels = one_patch_decides(500)
    settings = AttentiveSettings(epochs=8, warmup_epochs=1.0, batch_size=64, lrs=(1e-5, 0.2))
    found = attentive_probe(tokens, labels, tokens[:10], classes=4, settings=settings)
    assert found.lr == 0.2
    assert found.held_out_accuracy[0.2] > found.held_out_accuracy[1e-5]
    again = attentive_probe(tokens, labels, -tokens[:7], classes=4, settings=settings)
    assert again.held_out_accuracy == found.held_out_accuracy


def test_what_cannot_be_trained_is_refused():
    tokens, labels = one_patch_decides(20)
    with pytest.raises(SourceError, match="two classes"):
        attentive_probe(tokens, labels * 0, tokens, classes=4)
    with pytest.raises(SourceError, match="outside the 2 classes"):
        attentive_probe(tokens, labels, tokens, classes=2)
    broken = tokens.clone()
    broken[3, 2, 1] = float("inf")
    with pytest.raises(CheckpointError, match=r"train \(tokens\) features of 1 of 20 .* number 3"):
        attentive_probe(broken, labels, tokens, classes=4)
    for wrong in ({"epochs": 0}, {"batch_size": 1}, {"lrs": ()}, {"lrs": (0.0,)}):
        with pytest.raises(ConfigError, match="at least 1 epoch"):
            AttentiveSettings(**wrong)
