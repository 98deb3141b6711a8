"""Leases on versions of a remote store, on a real S3 server: one holder at a time, even after a crash."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from bentofs.store.clients.objects import WritableObjects
from bentofs.store.clients.retry import RetryPolicy
from bentofs.store.clients.s3 import S3Objects
from bentofs.store.errors import CancelledError, ModelExistsError, StoreUnwritableError
from bentofs.store.location import Location
from bentofs.store.model.tag import Tag
from bentofs.store.publishing import lease as claims
from bentofs.store.publishing.lease import Lease
from tests.buckets import Bucket
from tests.harness import wait_until
from tests.no_threads import NoThreads
from tests.servers import SeaweedServer

TAG = Tag("m", "v1")
KEY = "m/.v1.bentofs-claim"


@pytest.fixture
def bucket(seaweed: SeaweedServer) -> Bucket:
    return Bucket(seaweed)


@pytest.fixture
def objects(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> WritableObjects:
    for name, value in bucket.environment().items():
        monkeypatch.setenv(name, value)
    return S3Objects(Location.parse(bucket.url), RetryPolicy(connect_seconds=30, silence_seconds=30, seconds=30))


def claim(objects: WritableObjects) -> Lease:
    return Lease(objects, TAG)


def test_one_holder_at_a_time(bucket: Bucket, objects: WritableObjects) -> None:
    holders = []
    most = []

    def hold(_: int) -> None:
        with claim(objects) as held:
            holders.append(held)
            most.append(len(holders))
            held.check()
            time.sleep(0.02)  # let another holder come in, if it can
            holders.remove(held)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(hold, range(8)))
    assert most == [1] * 8
    assert bucket.paths() == []


def test_waiting_that_is_given_up(objects: WritableObjects) -> None:
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    with claim(objects), pytest.raises(CancelledError):
        Lease(objects, TAG, [stop]).__enter__()


def test_a_lease_that_cannot_be_renewed_is_given_back(
    bucket: Bucket, objects: WritableObjects, no_threads: NoThreads
) -> None:
    with pytest.raises(RuntimeError, match="start new thread"), no_threads(), claim(objects):
        pass
    with claim(objects):  # at once
        pass
    assert bucket.paths() == []


def test_waiting_in_vain(objects: WritableObjects, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_WAIT_SECONDS", 0.5)
    with claim(objects), pytest.raises(ModelExistsError, match="another host"), claim(objects):
        pass


def test_one_that_was_left_behind(bucket: Bucket, objects: WritableObjects, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several processes want an abandoned lease. One takes it over, and not before it has expired."""
    monkeypatch.setattr(claims, "EXPIRY_SECONDS", 3.0)
    bucket.put(KEY, b'{"by": "somebody who crashed"}')
    begun = time.monotonic()
    holders: list[Lease] = []

    def take(_: int) -> float:
        with claim(objects) as held:
            assert not holders
            holders.append(held)
            taken = time.monotonic() - begun
            time.sleep(0.05)  # let another holder come in, if it can
            holders.remove(held)
            return taken

    with ThreadPoolExecutor(4) as pool:
        times = list(pool.map(take, range(4)))
    assert min(times) > 1.5, "the server counts in whole seconds"
    assert bucket.paths() == []


def test_it_is_renewed(objects: WritableObjects, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT_SECONDS", 0.2)
    monkeypatch.setattr(claims, "EXPIRY_SECONDS", 4.0)
    monkeypatch.setattr(claims, "_WAIT_SECONDS", 6.0)
    with claim(objects) as held:
        with pytest.raises(ModelExistsError), claim(objects):
            pass
        held.check()


def _is_lost(held: Lease) -> bool:
    try:
        held.check()
    except StoreUnwritableError:
        return True
    return False


@pytest.mark.parametrize("change", ["taken over", "removed"])
def test_a_holder_that_lost_it_is_told(
    change: str, bucket: Bucket, objects: WritableObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "BEAT_SECONDS", 0.2)
    with claim(objects) as held:
        if change == "removed":
            bucket.delete(KEY)
        else:
            bucket.put(KEY, b'{"by": "another"}')
        wait_until(lambda: _is_lost(held), 20, "the holder is told")
    assert bucket.paths() == ([KEY] if change == "taken over" else []), "what is another's is left alone"
