"""Files of weights: this package's own, and those that others wrote."""
