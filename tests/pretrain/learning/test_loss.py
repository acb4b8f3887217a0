import pytest
import torch
from torch.nn import functional

from caev2.pretrain.learning.loss import alignment_loss, order_targets, token_cosines


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_loss_is_torchs_cosine_embedding_loss_on_unit_vectors():
    predicted, target = draw(3, 9, 16), draw(3, 9, 16, seed=1)
    unit = [functional.normalize(x, dim=-1).reshape(-1, 16) for x in (predicted, target)]
    expected = functional.cosine_embedding_loss(*unit, torch.ones(27))
    torch.testing.assert_close(alignment_loss(predicted, target, 4).loss, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("factor", "loss"), [(2.0, 0.0), (-0.5, 2.0)])
def test_only_directions_count(factor, loss):
    target = draw(2, 5, 8)
    assert alignment_loss(target * factor, target, 2).loss.item() == pytest.approx(loss, abs=1e-6)


def test_half_precision_targets_are_compared_in_float32():
    """Lengths of real latents overflow float16 when squared."""
    predicted, target = draw(2, 5, 512), draw(2, 5, 512, seed=1) * 30
    exact = alignment_loss(predicted, target.half().float(), 2).loss
    assert torch.equal(alignment_loss(predicted, target.half(), 2).loss, exact)
    assert torch.isfinite(exact)


def test_kinds_of_tokens_are_told_apart_and_add_up():
    target = draw(2, 10, 8)
    predicted = target.clone().requires_grad_()
    signs = torch.tensor([1.0] + [-1.0] * 3 + [0.0] * 6)  # aligned class token, opposed visible, absent masked
    alignment = alignment_loss(predicted * signs[:, None], target, 3)
    found = [alignment.class_cosine, alignment.visible_cosine, alignment.masked_cosine]
    torch.testing.assert_close(torch.stack(found), torch.tensor([1.0, -1.0, 0.0]))
    assert alignment.loss.item() == pytest.approx(1 - (1 - 3) / 10, abs=1e-6)
    assert not any(cosine.requires_grad for cosine in found)
    assert alignment.loss.requires_grad


def test_a_latent_of_zeros_gives_a_finite_gradient():
    predicted = torch.zeros(1, 3, 4, requires_grad=True)
    token_cosines(predicted, draw(1, 3, 4)).sum().backward()
    assert torch.isfinite(predicted.grad).all()


def test_targets_follow_the_order_of_predictions():
    target = torch.arange(2 * 5).reshape(2, 5, 1).float()
    ordered = order_targets(target, torch.tensor([[1, 3], [0, 2]]), torch.tensor([[0, 2], [1, 3]]))
    assert ordered[..., 0].tolist() == [[0, 2, 4, 1, 3], [5, 6, 8, 7, 9]]
