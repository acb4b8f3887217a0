"""Stores at URLs: paths, downloads and the cache of what was read."""
