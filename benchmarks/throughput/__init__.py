"""Parts of `benchmarks/extract_throughput.py`."""
