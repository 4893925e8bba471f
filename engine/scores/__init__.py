"""Per-sample scores: one function each, tensors in, tensors out. `engine.scores.registry` lists them."""
