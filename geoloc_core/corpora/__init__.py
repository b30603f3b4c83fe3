"""From published files to clean, split, versioned manifests."""
