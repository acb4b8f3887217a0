"""Who runs the runs of a study: this process, several of this machine, or a Ray cluster."""
