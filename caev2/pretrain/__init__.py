"""Stage two: the CAE v2 student learns from stored targets."""
