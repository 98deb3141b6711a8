"""Endpoints: where an export goes to and an import comes from: this machine, S3, FTP, SFTP, whatever fsspec knows."""
