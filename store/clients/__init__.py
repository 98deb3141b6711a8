"""Clients of S3, SSH and fsspec. Stores (`store.storage`) and transfers (`store.transfer.endpoints`) share them."""
