"""The handlers of the kernel's requests, grouped by subject."""
