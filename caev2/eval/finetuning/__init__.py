"""Fine-tuning: the whole encoder trained on labels, as the published scripts do it."""
