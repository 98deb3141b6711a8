"""Model stores in buckets, for tests: filled without bentofs, by botocore alone."""

import json
import secrets
import zlib
from pathlib import Path

from tests.servers import S3Server


class Bucket:
    """A store at its own prefix. All share a bucket, since SeaweedFS reserves room for each bucket."""

    name = "stores"

    def __init__(self, server: S3Server) -> None:
        self.server = server
        self.client = server.client()
        self.prefix = f"some-{secrets.token_hex(6)}/models"
        if self.name not in [bucket["Name"] for bucket in self.client.list_buckets()["Buckets"]]:
            self.client.create_bucket(Bucket=self.name)

    @property
    def url(self) -> str:
        return f"s3://{self.name}/{self.prefix}"

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        return self.server.environment(endpoint)

    def put(self, path: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=f"{self.prefix}/{path}", Body=content)

    def get(self, path: str) -> bytes:
        return self.server.content(self.name, f"{self.prefix}/{path}")

    def delete(self, path: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=f"{self.prefix}/{path}")

    def paths(self, below: str = "") -> list[str]:
        begin = len(self.prefix) + 1
        return [key[begin:] for key in self.server.keys(self.name, f"{self.prefix}/{below}")]

    def upload(self, store: Path) -> None:
        """Upload everything in a local store; each model.yaml after the model's other files."""
        files = [path for path in store.rglob("*") if path.is_file()]
        for path in sorted(files, key=lambda path: (path.name == "model.yaml", path)):
            self.put(str(path.relative_to(store)), path.read_bytes())

    def add_manifest(self, tag: str, folder: Path) -> None:
        """Add the file that bentofs leaves beside a model that it imports."""
        name, version = tag.split(":")
        begin = f"{self.prefix}/{name}/{version}/"
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=begin)
        files = {}
        for item in [item for page in pages for item in page.get("Contents", [])]:
            path = item["Key"][len(begin) :]
            files[path] = {
                "etag": item["ETag"].strip('"'),
                "crc32": zlib.crc32((folder / path).read_bytes()),
                "executable": bool((folder / path).stat().st_mode & 0o100),
            }
        folders = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_dir()]
        told = {"format": 1, "files": files, "folders": folders}
        self.put(f"{name}/.{version}.bentofs.json", json.dumps(told).encode())
