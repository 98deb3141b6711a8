"""The engines: all code that speaks to the kernel, and no other code."""
