"""Grids of pre-training runs over the stores of a study: what the paper's ablations, and new ones, come to."""
