"""CLIP-target precompute and offline distillation: CAE v2 pre-training without CLIP in the loop."""

__version__ = "0.1.0.dev0"
