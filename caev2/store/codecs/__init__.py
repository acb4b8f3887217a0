"""How a row of latents becomes bytes, and bytes latents again: fitted once on calibration rows, then pure functions."""
