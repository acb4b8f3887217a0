"""What `benchmarks/pretrain_loader.py` is made of."""
