"""The command `bentofs serve`."""

from __future__ import annotations

import logging
import os
import ssl
import sys
from pathlib import Path

import click

from bentofs.mount.cli.complete import complete_file
from bentofs.mount.cli.format_options import checked_formats, compression_for, compression_option, formats_option
from bentofs.mount.cli.incoming_options import limits_options, settle_option
from bentofs.mount.cli.log_options import log_file_option, log_level_option
from bentofs.mount.cli.options import by_label_option, follow_links_option, staging_option, store_options
from bentofs.mount.cli.output import json_option, print_document
from bentofs.mount.daemon.logs import start_logging
from bentofs.mount.errors import CannotMountError
from bentofs.mount.incoming.service import IncomingSettings
from bentofs.mount.serve.variables import TOKEN_VARIABLE
from bentofs.store.formats.write.registry import Format
from bentofs.store.staging.limits import Limits
from bentofs.store.storage.open import StoreSpec
from bentofs.store.util.display import printable

log = logging.getLogger(__name__)


class _Address(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.2
    """HOST:PORT. An IPv6 address stands in brackets."""

    name = "host:port"

    def convert(
        self, value: str | tuple[str, int], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        host, _, port = value.rpartition(":")
        host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
            self.fail(f"{value} is not an address: write HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080", param, ctx)
        return host, int(port)


@click.command(name="serve")
@store_options
@click.option(
    "--bind",
    type=_Address(),
    default="127.0.0.1:8080",
    show_default=True,
    metavar="HOST:PORT",
    help="The address to serve at. Port 0 is any that is free; the log says which.",
)
@click.option(
    "--auth",
    metavar="FILE",
    shell_complete=complete_file,
    help="Ask for a password or token. FILE has lines of `htpasswd -B`, and bearer tokens, one a line. A token may "
    f"also stand in ${TOKEN_VARIABLE}. Other machines can reach a server only with one of both.",
)
@click.option(
    "--host",
    "names",
    multiple=True,
    metavar="NAME",
    help="Another name by which clients reach the server, as behind a proxy. Addresses, localhost and the machine's "
    "own name need none.",
)
@click.option("--tls-cert", metavar="FILE", shell_complete=complete_file, help="Serve by HTTPS with this certificate.")
@click.option("--tls-key", metavar="FILE", shell_complete=complete_file, help="The certificate's key, if not in FILE.")
@formats_option
@compression_option
@follow_links_option
@by_label_option
@click.option("--read-only/--no-read-only", help="Serve without incoming/.")
@click.option(
    "--overwrite/--no-overwrite",
    help="Let uploads into incoming/ replace models that have the same tag and other content.",
)
@staging_option
@settle_option
@limits_options
@log_level_option
@log_file_option
@json_option
def serve_command(
    store: StoreSpec,
    bind: tuple[str, int],
    auth: str | None,
    names: tuple[str, ...],
    tls_cert: str | None,
    tls_key: str | None,
    formats: list[Format],
    compression: str | None,
    follow_links: bool,
    by_label: bool,
    read_only: bool,
    overwrite: bool,
    staging: str | None,
    settle: float | None,
    limits: Limits,
    log_level: str,
    log_file: str | None,
    as_json: bool,
) -> None:
    """Serve a model store by HTTP and WebDAV: the tree of a mount, without FUSE.

    It stays in the foreground until it is interrupted.
    """
    # They load aiohttp and more, which `--help` does not need.
    from bentofs.mount.daemon.http_server import ServerSettings, serve_http
    from bentofs.mount.serve.auth import read_credentials

    store.check()
    if not store.may_be_read():
        raise CannotMountError(
            f"the model store {printable(store.location)} may not be read by you: ask its owner, or use "
            "another with --store"
        )
    chosen = compression_for(compression, store)
    host, port = bind
    incoming = IncomingSettings(staging=staging, overwrite=overwrite, settle_seconds=settle, limits=limits)
    settings = ServerSettings(
        store=store,
        formats=checked_formats(formats, chosen),
        follow_links=follow_links,
        by_label=by_label,
        incoming=incoming if store.may_be_written() and not read_only else None,
        compression=chosen,
        host=host,
        port=port,
        names=names,
        credentials=read_credentials(auth, os.environ.pop(TOKEN_VARIABLE, None)),
        tls=_tls(tls_cert, tls_key),
        log_level=log_level,
        log_file=Path(log_file) if log_file is not None else None,
    )
    recent = start_logging(log_level, settings.log_file, takes_output=False)
    if settings.incoming is None and not read_only:
        log.warning("no incoming/: %s may not be written by you", printable(store.location))

    def ready(url: str, has_incoming: bool) -> None:
        if as_json:
            print_document({"store": store.location, "url": url, "incoming": has_incoming})
            sys.stdout.flush()

    serve_http(settings, ready, recent)
    logging.shutdown()
    sys.stderr.flush()
    os._exit(0)  # threads may still wait for a server


def _tls(certificate: str | None, key: str | None) -> ssl.SSLContext | None:
    """Return the context for HTTPS; None for HTTP."""
    if certificate is None:
        if key is not None:
            raise click.UsageError("--tls-key needs --tls-cert")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")  # else OpenSSL would ask on the terminal
    except ssl.SSLError as error:
        reason = (error.reason or "no PEM").replace("_", " ").lower()
        shown = printable(certificate) + (f" and {printable(key)}" if key else "")
        raise CannotMountError(f"{shown} cannot be used for HTTPS: {reason}", 2) from None
    except OSError as error:
        raise CannotMountError(f"{printable(certificate)} or its key cannot be read: {error.strerror}", 2) from None
    return context
