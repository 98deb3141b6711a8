"""The library of bentofs: a BentoML model store, its models and their archives. It knows no FUSE and no terminal."""
