"""SHA-256 baselines of models, and files of checksums."""
