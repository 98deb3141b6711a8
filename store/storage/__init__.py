"""Where a store's bytes live. `base` says what every place offers; `local` is a folder of this machine."""
