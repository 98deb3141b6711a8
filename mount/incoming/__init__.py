"""`incoming/`, the drop box: uploads, their staging and import. Knows no FUSE."""
