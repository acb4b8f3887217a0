"""A recipe for a very small student; nothing here knows a teacher."""

from caev2.pretrain.recipes import OptimizerSettings, PretrainRecipe
from caev2.pretrain.student.sizes import ModelSettings
from caev2.pretrain.supply.masks import MaskSettings

SIZE_PX, PATCH_PX = 32, 8

PRETRAIN = PretrainRecipe(
    model=ModelSettings(
        image_px=SIZE_PX, patch_px=PATCH_PX, width=24, depth=2, heads=2, regressor_width=12, regressor_depth=2,
        regressor_heads=2, drop_path=0.3,
    ),
    mask=MaskSettings(count=6, min_block_patches=2),
    optimizer=OptimizerSettings(lr=1e-2, warmup_epochs=0.5),
    epochs=3, batch_size=6, log_steps=1, workers=0,
)  # fmt: skip
