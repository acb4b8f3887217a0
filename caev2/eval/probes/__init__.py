"""Probes: pure functions from frozen features to answers."""
