"""Detectors: networks, evidence, calibration, and the registry that keeps them."""
