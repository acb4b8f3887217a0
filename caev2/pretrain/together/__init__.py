"""Several processes, one run; one process, one run; and leaving in order."""
