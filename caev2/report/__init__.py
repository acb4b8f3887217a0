"""One HTML page of runs and ablations: curves, tables, pictures, and where every number comes from."""
