"""Batches: which rows, views and masks a step sees, and how they reach the device."""
