"""Rows with what trained teachers have: a large shared mean, channels of unequal spread, correlation, a class token apart."""

import numpy as np

NAMES = ("float16", "int8", "lloyd4", "klt", "pq", "klt:7", "pq:5")
NORMALISING = NAMES[1:]


def make_rows(seed=0, rows=24, tokens=9, width=32, spread=0.5):
    random = np.random.default_rng(seed)
    channels = np.exp(spread * random.standard_normal(width))
    mixing = np.eye(width) + 0.3 * random.standard_normal((width, width)) / np.sqrt(width)
    values = random.standard_normal((rows, tokens, width)) * channels @ mixing + random.standard_normal(width)
    values[:, 0] = values[:, 0] * 0.5 - random.standard_normal(width)
    return (values * random.uniform(0.5, 20)).astype(np.float32)
