"""Kinds of sources: folders, tars, tables, lists. `caev2.store.images.open_images` tells them apart."""
