"""What the benchmarks of the stream share: workers of their own, and what is measured in them."""
