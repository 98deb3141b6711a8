"""The handlers of the kernel's requests, by what they are about."""
