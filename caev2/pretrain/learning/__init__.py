"""One step: stored codes to latents, a loss, an update."""
