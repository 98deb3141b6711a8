"""The composition root: opens a store with all objects that the daemon, the commands and the Python API need."""
