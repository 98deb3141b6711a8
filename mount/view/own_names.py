"""The names of the files in which a mount tells of itself. Imports nothing: `bentofs status` needs the names alone."""

OWN = ".bentofs"  # the directory at the top of a mount, which is not listed
STATUS, METRICS, LOG = "status.json", "metrics", "log"  # in it
