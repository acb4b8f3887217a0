"""The network: what it is made of, and how large."""
