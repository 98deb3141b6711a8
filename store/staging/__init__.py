"""A model made ready beside the store, safe over crashes."""
