"""Archives for random access: the exact length is known before any read, and every offset costs the same."""
