"""bentofs's file system: a model store as files to copy."""
