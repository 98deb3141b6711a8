"""Clients of S3, SSH and fsspec, which stores (`store.storage`) and transfers (`store.transfer.endpoints`) share."""
