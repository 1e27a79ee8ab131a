"""One script a claim about speed or quality: each runs us and a peer in turn on the same input. See `benchmarks.harness`."""
