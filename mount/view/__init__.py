"""The read-only tree of a mount. Knows no FUSE."""
