"""Parts of `benchmarks/pretrain_step.py` and `benchmarks/pretrain_end_to_end.py`."""
