"""A server on loopback that speaks S3's protocol."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import fsspec
import pytest

KEY, SECRET = "key", "secret"


@contextmanager
def serving_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket's URL; whoever opens it by fsspec is led to the server."""
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    try:
        bucket = f"stores-{uuid.uuid4().hex}"  # the servers of one process share what they hold
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir(bucket)
        yield f"s3://{bucket}"
    finally:
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        server.stop()
