"""How rows lie in files: zarr shards and tars, written whole and read in place."""
