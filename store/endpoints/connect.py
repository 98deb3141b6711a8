"""Connect: the endpoint that a location names."""

from __future__ import annotations

from store.endpoints.base import Endpoint, Target
from store.endpoints.local import LocalEndpoint
from store.errors import BadLocationError
from store.location import Location
from store.servers.stops import Stops


def open_target(location: Location, stops: Stops = ()) -> Target:
    """Where an export goes to; close it in the end. Errors as `open_endpoint`."""
    return LocalEndpoint() if location.is_local else open_endpoint(location, stops)


def open_endpoint(location: Location, stops: Stops = ()) -> Endpoint:
    """The server of a location; close it in the end. `stops`: once one is set, whatever it does ends soon.

    Libraries are loaded when they are needed: a command needs those of one protocol.

    Raises:
        BadLocationError: a package for its protocol is not installed, or a parameter has no meaning.
        RemoteError: it cannot be reached.
    """
    try:
        return _open(location, stops)
    except ImportError as error:
        raise BadLocationError(f"{location.protocol}:// is not possible here: {error}") from error
    except TypeError as error:
        raise BadLocationError(f"{location.shown}: one of the parameters has no meaning there: {error}") from error


def _open(location: Location, stops: Stops) -> Endpoint:
    if location.protocol in ("s3", "s3a"):
        from store.endpoints.s3 import S3Endpoint

        return S3Endpoint(location, stops)
    if location.protocol in ("ftp", "ftps"):
        from store.endpoints.ftp import FtpEndpoint

        return FtpEndpoint(location, stops, tls=location.protocol == "ftps")
    if location.protocol in ("sftp", "ssh"):
        from store.endpoints.sftp import SftpEndpoint

        return SftpEndpoint(location, stops)
    from store.endpoints.anywhere import AnyEndpoint

    return AnyEndpoint(location, stops)
