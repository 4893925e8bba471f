"""From scores to the samples that stay."""
