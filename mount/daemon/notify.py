"""Tell the service manager how the daemon fares, by the protocol of sd_notify(3): a datagram to `$NOTIFY_SOCKET`."""

from __future__ import annotations

import logging
import os
import socket

log = logging.getLogger(__name__)

_VARIABLE = "NOTIFY_SOCKET"


class ServiceManager:
    """The service manager that waits for this process, if there is one."""

    def __init__(self) -> None:
        """Take the socket's address out of the environment: programs that this process starts must not speak for it."""
        self._address = os.environ.pop(_VARIABLE, "")
        if self._address.startswith("@"):  # a name without a file
            self._address = "\0" + self._address[1:]

    def ready(self, status: str) -> None:
        """Tell that the mount answers."""
        self._tell("READY=1", f"MAINPID={os.getpid()}", f"STATUS={status}")

    def stopping(self, status: str) -> None:
        """Tell that the daemon ends."""
        self._tell("STOPPING=1", f"STATUS={status}")

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        text = "\n".join(line.replace("\n", " ") for line in lines)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.sendto(text.encode("utf-8", "replace"), os.fsencode(self._address))
        except OSError as error:
            log.info("the service manager could not be told %r: %s", lines[0], error)
