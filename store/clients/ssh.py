"""SSH by paramiko: connections to servers with a known host key.

Host keys come from ~/.ssh/known_hosts, or from the file that the parameter `known_hosts` names. Logins are the same as
with ssh: the password, the key that the parameter `identity` names, an agent, ~/.ssh/id_*.

Threading: a connection is used by one thread at a time.
"""

from __future__ import annotations

import os

import paramiko
from fsspec.implementations.sftp import SFTPFileSystem

from bentofs.store.errors import RemoteDeniedError
from bentofs.store.location import Location

_PORT = 22


def open_sftp(
    location: Location, *, connect_seconds: float, silence_seconds: float
) -> tuple[paramiko.SSHClient, paramiko.SFTPClient]:
    """Open a connection, and SFTP on it. Also raises exceptions of paramiko and OSErrors.

    Raises:
        BadLocationError: the port is invalid.
        RemoteDeniedError: the server's key is not known.
    """
    host, port = location.host_and_port(_PORT)
    client = paramiko.SSHClient()
    known, identity = location.params.get("known_hosts"), location.params.get("identity")
    if known:
        client.load_host_keys(os.path.expanduser(known))
    else:
        client.load_system_host_keys()
    client.set_missing_host_key_policy(_Refusing(location))
    try:
        client.connect(
            host,
            port,
            location.user,
            location.password,
            key_filename=os.path.expanduser(identity) if identity else None,
            timeout=connect_seconds,
            banner_timeout=connect_seconds,
            auth_timeout=connect_seconds,
        )
        sftp = client.open_sftp()
        channel = sftp.get_channel()
        if channel is not None:
            channel.settimeout(silence_seconds)
    except BaseException:
        client.close()
        raise
    return client, sftp


class KnownHostFileSystem(SFTPFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The SFTP file system of fsspec, but it refuses unknown host keys. The original accepts any."""

    def __init__(self, *, location: Location, connect_seconds: float, silence_seconds: float, **_: object) -> None:
        self._location = location
        self._seconds = (connect_seconds, silence_seconds)
        super().__init__(location.host)

    def _connect(self) -> None:
        connect_seconds, silence_seconds = self._seconds
        self.client, self.ftp = open_sftp(
            self._location, connect_seconds=connect_seconds, silence_seconds=silence_seconds
        )


class _Refusing(paramiko.MissingHostKeyPolicy):
    def __init__(self, location: Location) -> None:
        self._location = location

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:  # noqa: ARG002
        raise RemoteDeniedError(
            f"{self._location.shown}: the host key of {hostname} is not known: connect to it with ssh once, or name a "
            "file that has it with the parameter known_hosts"
        )
