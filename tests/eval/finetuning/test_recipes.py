"""The recipes have the numbers of the published scripts, and what cannot be is refused."""

import pytest

from caev2.errors import ConfigError
from caev2.eval.finetuning.recipes import RECIPES
from caev2.recipe import override

SCRIPTS = {
    # epochs, warm-up, lr, layer decay, drop path, mixup, cutmix, smoothing
    "tiny": (100, 5, 4e-3, 0.85, 0.0, 0.2, 0.0, 0.0),
    "small": (200, 20, 4e-4, 0.75, 0.1, 0.8, 1.0, 0.1),
    "base": (100, 5, 2e-4, 0.75, 0.1, 0.8, 1.0, 0.1),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_recipe_has_the_effective_numbers_of_its_script(name):
    recipe = RECIPES[name]
    optimizer, mix = recipe.optimizer, recipe.mix
    assert SCRIPTS[name] == (
        recipe.epochs, optimizer.warmup_epochs, optimizer.lr, optimizer.layer_decay, recipe.model.drop_path,
        mix.mixup, mix.cutmix, mix.smoothing,
    )  # fmt: skip
    assert (optimizer.weight_decay, optimizer.min_lr, optimizer.betas) == (0.05, 1e-6, (0.9, 0.999))
    assert (optimizer.clip_norm, recipe.ema_decay, recipe.batch_size, mix.images) == (None, None, 1024, 128)
    assert recipe.augmentation.auto_augment == "rand-m9-mstd0.5-inc1"
    assert (recipe.augmentation.color_jitter, recipe.augmentation.erase) == (None, 0.25)
    assert (recipe.model.position_bias, optimizer.decay_position_bias, recipe.model.head_scale) == (True, True, 0.001)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("augmentation.color_jitter=0.4", "beside that, timm does not jitter"),
        ("augmentation.crop_scale=[0.9, 0.2]", "give two shares of the image in order"),
        ("mix.images=7", "give an even number"),
        ("mix.smoothing=1.0", "must be below 1"),
        ("optimizer.layer_decay=0.0", "above 0 and at most 1"),
        ("optimizer.lr=-1.0", "must be at least 0"),
        ("model.drop_path=1.0", "below 1"),
        ("epochs=0", "must be at least 1"),
        ("ema_decay=1.0", "between 0 and 1"),
        ("model.layer_decay=0.5", "no setting called 'model.layer_decay'"),
    ],
)
def test_what_cannot_be_is_refused_with_its_name(setting, said):
    with pytest.raises(ConfigError, match=said):
        override(RECIPES["base"], [setting])
