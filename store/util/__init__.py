"""Helpers that know nothing of models: files, locks, SQLite, display."""
