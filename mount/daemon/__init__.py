"""One process that serves one mount: start, log, end."""
