"""New stores out of old ones: other layouts, other codecs, more views, copies."""
