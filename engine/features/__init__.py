"""What stands for a sample: features, their neighbors, and the map."""
