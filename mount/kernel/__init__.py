"""The engines: all that speaks to the kernel, and nothing else."""
