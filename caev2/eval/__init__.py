"""Stage three: from a checkpoint to a number."""
