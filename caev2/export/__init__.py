"""Weights in the formats of others: what a run has learned, where caev2 is not installed."""
