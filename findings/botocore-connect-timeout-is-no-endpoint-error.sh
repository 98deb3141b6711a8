#!/usr/bin/env bash
# botocore's connect timeout is neither an EndpointConnectionError nor an HTTPClientError; its read timeout is the latter.
#
# Seen with botocore 1.43.117 on CPython 3.11.7, Linux.
# An address where nothing listens is an EndpointConnectionError, a silent server a ReadTimeoutError, which is an
# HTTPClientError. Code that catches these two misses ConnectTimeoutError and ProxyConnectionError: they are neither.
# `except OSError` catches those two and the ReadTimeoutError, but not the refused connection. None is a builtin
# TimeoutError or ConnectionError. botocore.exceptions.ConnectionError, another class of that name, covers all that fail
# to connect, and no read timeout.
# Expected: one base for every failure to reach the server; connect and read timeouts related.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/v"
"$work/v/bin/pip" install -q --disable-pip-version-check botocore==1.43.117
no_proxy=127.0.0.1 "$work/v/bin/python" - <<'P' | tee "$work/out"
import builtins, socket
import botocore.exceptions as errors
from botocore.config import Config
from botocore.session import Session

BASES = {"HTTPClientError": errors.HTTPClientError, "EndpointConnectionError": errors.EndpointConnectionError,
         "botocore ConnectionError": errors.ConnectionError, "OSError": OSError,
         "builtin ConnectionError": builtins.ConnectionError, "TimeoutError": TimeoutError}

def address(listener):
    return f"http://127.0.0.1:{listener.getsockname()[1]}"

def failure(url, **options):
    config = Config(connect_timeout=1, read_timeout=1, retries={"total_max_attempts": 1}, **options)
    client = Session().create_client("s3", "us-east-1", endpoint_url=url, config=config,
                                     aws_access_key_id="example", aws_secret_access_key="example")
    try:
        client.list_buckets()
    except Exception as error:
        return f"{type(error).__name__}: {[name for name, base in BASES.items() if isinstance(error, base)]}"

refusing = socket.socket()  # bound, but not listening
refusing.bind(("127.0.0.1", 0))
silent = socket.create_server(("127.0.0.1", 0))  # the kernel connects, nobody answers
full = socket.create_server(("127.0.0.1", 0), backlog=0)
waiting = [socket.socket() for _ in range(3)]  # fill the queue of `full`, so that it takes no connection
for one in waiting:
    one.setblocking(False)
    one.connect_ex(full.getsockname())
print("refused:", failure(address(refusing)))
print("proxy refused:", failure("http://store.example", proxies={"http": address(refusing)}))
print("connect timeout:", failure(address(full)))
print("read timeout:", failure(address(silent)))
P
diff "$work/out" - <<'SEEN'
refused: EndpointConnectionError: ['EndpointConnectionError', 'botocore ConnectionError']
proxy refused: ProxyConnectionError: ['botocore ConnectionError', 'OSError']
connect timeout: ConnectTimeoutError: ['botocore ConnectionError', 'OSError']
read timeout: ReadTimeoutError: ['HTTPClientError', 'OSError']
SEEN
echo "as described"
