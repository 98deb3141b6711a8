"""Staging of models beside the store, safe against crashes."""
