"""The engine on libfuse 2, by fusepy."""
