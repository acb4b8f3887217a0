"""Who computes the units of an extraction: one device, several, or a cluster. The files are the same."""
