"""Storage: where a store's bytes live. `base` is the interface; `local` is a directory of this machine."""
