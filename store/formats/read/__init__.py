"""Archives of any kind, checked and unpacked while their bytes arrive."""
