"""Import and export: between a store and paths, streams and URLs."""
