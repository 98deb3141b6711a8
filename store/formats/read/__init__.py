"""Archives of every kind, checked and unpacked while their bytes arrive."""
