"""Reading images and labels: sources, noise, thumbnails, the dataset file and tensors on a device."""
