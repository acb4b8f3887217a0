"""How large a student is: the published sizes, and the limits of one's own.

No torch here, so that recipes can be listed without it.
"""

from dataclasses import dataclass

from caev2.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Sizes of encoder, regressor and head; the defaults are what the published sizes have in common."""

    image_px: int = 224
    """Side of the square image."""
    patch_px: int = 16
    """Side of a square patch; divides `image_px`."""
    width: int
    """Width of the encoder's latents; a multiple of `heads` and of 4."""
    depth: int = 12
    """Blocks of the encoder."""
    heads: int = 12
    """Attention heads of the encoder: 12 for the published tiny and small too, where DeiT has 3 and 6."""
    mlp_ratio: float = 4.0
    """Hidden width of every MLP over the width around it."""
    layer_scale: float | None = 0.1
    """What the encoder's layer scales start from; none: no layer scale."""
    regressor_width: int
    """Width of regressor and head; where it differs from `width`, a projection goes between."""
    regressor_depth: int
    """Blocks of the regressor; 0: there is none, and no latent of a masked patch is predicted."""
    regressor_heads: int = 12
    """Attention heads of the regressor."""
    regressor_layer_scale: float | None = 0.1
    """What the regressor's layer scales start from; none: fixed at one."""
    target_width: int = 512
    """Width of the teacher's latents."""
    drop_path: float = 0.1
    """Probability of skipping a branch in the last block; rises linearly from 0 in the first."""

    def __post_init__(self):
        for name in ("image_px", "patch_px", "width", "depth", "heads", "mlp_ratio"):
            self._require(getattr(self, name) > 0, name, "Give a number above 0.")
        for name in ("regressor_width", "regressor_heads", "target_width"):
            self._require(getattr(self, name) > 0, name, "Give a number above 0.")
        self._require(self.regressor_depth >= 0, "regressor_depth", "Give a number above 0, or 0 for no regressor.")
        self._require(self.image_px % self.patch_px == 0, "patch_px", f"Give a divisor of image_px = {self.image_px}.")
        for name, heads in (("width", self.heads), ("regressor_width", self.regressor_heads)):
            width = getattr(self, name)
            self._require(width % heads == 0, name, f"Give a multiple of the {heads} heads.")
            self._require(width % 4 == 0, name, "Give a multiple of 4: sine and cosine of row and column.")
        for name in ("layer_scale", "regressor_layer_scale"):
            scale = getattr(self, name)
            self._require(scale is None or scale > 0, name, "Give a number above 0, or none for no layer scale.")
        self._require(0 <= self.drop_path < 1, "drop_path", "Give a probability, at least 0 and below 1.")

    def _require(self, holds: bool, name: str, advice: str):
        if not holds:
            raise ConfigError(f"The student's {name} cannot be {getattr(self, name)}. {advice}")

    @property
    def grid_size(self) -> int:
        """Patches along one side of the image."""
        return self.image_px // self.patch_px

    @property
    def patches(self) -> int:
        """Patches of one image."""
        return self.grid_size**2


SIZES: dict[str, ModelSettings] = {
    "tiny": ModelSettings(width=192, regressor_width=96, regressor_depth=1),
    "small": ModelSettings(width=384, regressor_width=384, regressor_depth=1),
    "base": ModelSettings(width=768, regressor_width=768, regressor_depth=4),
    # No script was published for large. The published code would give its regressor 12 heads of width 85,
    # which do not fill 1024; 16 heads do. Its README starts the encoder's layer scales from 1e-5.
    "large": ModelSettings(
        width=1024,
        depth=24,
        heads=16,
        layer_scale=1e-5,
        regressor_width=1024,
        regressor_depth=4,
        regressor_heads=16,
    ),
}
"""The published sizes by name (Zhang et al., 2211.09799)."""
