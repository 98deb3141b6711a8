"""bentofs's library: a BentoML model store, its models, the archives made of them. Knows no FUSE, no terminal."""
