"""How well detectors find anomalies, on real data from outside: what `benchmarks/quality.py` is made of."""
