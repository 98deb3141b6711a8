"""Archives laid out for random access: exact length before a byte is read, any offset as cheap as the first."""
