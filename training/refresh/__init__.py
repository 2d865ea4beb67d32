"""Weights refresh themselves: when to train, on what, what a new version must show, and how it is put in service."""
