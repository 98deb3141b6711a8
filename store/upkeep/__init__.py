"""Upkeep: what bentofs keeps on disk, how large it is, and the removal of what is stale."""
