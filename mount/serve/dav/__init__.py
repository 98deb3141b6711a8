"""WebDAV (RFC 4918), classes 1 and 2: properties everywhere, changes and locks in `incoming/`."""
