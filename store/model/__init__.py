"""One model: its tag, its model.yaml, its files."""
