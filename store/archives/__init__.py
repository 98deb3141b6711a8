"""A store's archives: compression policy, sizes, the index of measurements."""
