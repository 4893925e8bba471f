"""Networks, the one training loop, and the recording of its dynamics."""
