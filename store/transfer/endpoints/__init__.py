"""Endpoints: targets of exports and sources of imports: this machine, S3, FTP, SFTP, anything that fsspec knows."""
