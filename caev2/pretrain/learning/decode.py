"""Stored codes to latents on the device: one lookup, one matmul, no branch on data.

The same rule as `caev2.store.codecs.codec.DecodePlan.decode`, the reference in numpy: the same bits before the
rotation, within 1e-6 relative after it. The matmul runs in float32 even under autocast; where TF32 is allowed it is
rounded to 11 bits, an error (1e-7 of the energy) that no codec comes near.
"""

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn

from caev2.store.codecs.codec import NORM_BYTES, DecodePlan, per_token


class TargetDecoder(nn.Module):
    """Decodes batches of rows; its tables are buffers that move with it and enter no checkpoint.

    Args:
        plan: What `Codec.plan` returns; none: the codes are the latents.
        tokens: Tokens of a row.
    """

    scale: Tensor
    mean: Tensor
    rotation: Tensor | None

    def __init__(self, plan: DecodePlan | None, tokens: int):
        super().__init__()
        self.is_cast = plan is None
        if plan is None:
            return
        self.spans = [(segment.start, segment.stop) for segment in plan.segments]
        for place, segment in enumerate(plan.segments):
            self._keep(f"values_{place}", segment.flat_values)
            self._keep(f"offsets_{place}", segment.offsets)
        self._keep("scale", per_token(plan.scale, tokens))
        self._keep("mean", per_token(plan.mean, tokens))
        self._keep("rotation", plan.rotation)

    def _keep(self, name: str, table: np.ndarray | None) -> None:
        tensor = None if table is None else torch.from_numpy(np.array(table))
        self.register_buffer(name, tensor, persistent=False)

    def forward(
        self, rows: Float[Tensor, "row token width"] | UInt8[Tensor, "row token byte"]
    ) -> Float32[Tensor, "row token width"]:
        """Latents in the teacher's basis.

        Args:
            rows: As they lie on disk: numbers, or bytes with each token's norm behind its codes.
        """
        if self.is_cast:
            return rows.float()
        codes, norms = rows[..., :-NORM_BYTES], rows[..., -NORM_BYTES:].contiguous().view(torch.float16)
        with torch.autocast(codes.device.type, enabled=False):
            values = self.values(codes)
            latents = values if self.rotation is None else values @ self.rotation
            return (latents + self.mean) * norms.float()

    def values(self, codes: UInt8[Tensor, "row token byte"]) -> Float32[Tensor, "row token coded"]:
        """Decoded channels before the rotation, to the bit as in numpy."""
        found = [self._look_up(place, codes) for place in range(len(self.spans))]
        return (found[0] if len(found) == 1 else torch.cat(found, dim=-1)) * self.scale

    def _look_up(self, place: int, codes: Tensor) -> Tensor:
        start, stop = self.spans[place]
        entries = codes[..., start:stop].int() + self.get_buffer(f"offsets_{place}")
        return nn.functional.embedding(entries, self.get_buffer(f"values_{place}")).flatten(-2)
