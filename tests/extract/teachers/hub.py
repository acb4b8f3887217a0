"""A server on this machine that answers as the hub does, and a process of its own that asks it."""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).parents[3]
COMMIT = "0123456789abcdef0123456789abcdef01234567"

# The environment is read when the client is imported, so commands run in a process that was begun with it. One line of
# JSON is one command; so is the answer.
ASKING = """
import json, sys
from click.testing import CliRunner
from caev2.cli import main
for line in sys.stdin:
    result = CliRunner().invoke(main, json.loads(line), prog_name="caev2")
    broken = result.exception is not None and not isinstance(result.exception, SystemExit)
    answer = [result.exit_code, result.stdout, repr(result.exception) if broken else result.stderr]
    print(json.dumps(answer), flush=True)
"""


class Hub(ThreadingHTTPServer):
    """Files of repositories in the hub's layout: a redirect with headers, then bytes from another path.

    Args:
        files: Content by `org/repository/file`.
    """

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.mode = "sound"
        """Or `short`, `wrong`, `small`, or the number of a refusal."""
        self.requests: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def cdn_url(self) -> str:
        """On another host, as the hub's is: redirects to the same one are followed for their headers."""
        return f"http://localhost:{self.server_address[1]}/cdn"

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_arguments: object) -> None:
        """Keep the terminal clean."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        if self.server.mode.isdigit():
            return self._refuse(int(self.server.mode))
        if self.path.startswith("/cdn/"):
            return self._send(self.server.files[self.path.removeprefix("/cdn/")], body)
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/main/(.+)", self.path)
        if not found or (content := self.server.files.get(f"{found[1]}/{found[2]}")) is None:
            return self._refuse(404)
        if self.server.mode == "small":
            git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            return self._send(content, body, {"ETag": f'"{git}"', "X-Repo-Commit": COMMIT})
        self.send_response(302)
        self.send_header("Location", f"{self.server.cdn_url}/{found[1]}/{found[2]}")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("X-Linked-Etag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    def _send(self, content: bytes, body: bool, headers: dict[str, str] | None = None) -> None:
        self.send_response(200)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body and self.server.mode == "short":
            self.wfile.write(content[: len(content) // 2])
        elif body:
            self.wfile.write(bytes([content[0] ^ 1]) + content[1:] if self.server.mode == "wrong" else content)

    def _refuse(self, status: int) -> None:
        self.send_response(status)
        code = {401: "RepoNotFound", 403: "GatedRepo", 404: "EntryNotFound"}.get(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


class Asker:
    """Runs commands in one process with an environment of its own."""

    def __init__(self, process: subprocess.Popen):
        self._process = process

    def caev2(self, *arguments: object) -> tuple[int, str, str]:
        """Exit status, standard output and standard error of a command."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(argument) for argument in arguments]) + "\n")
        self._process.stdin.flush()
        status, out, err = json.loads(self._process.stdout.readline())
        return status, out, err

    def refusal(self, *arguments: object) -> str:
        """The one paragraph that a refused command says."""
        status, out, err = self.caev2(*arguments)
        assert (status, out, err.count("\n")) == (2, "", 1), err
        assert err.startswith("caev2: ")
        return err


@contextmanager
def asking(home: Path, **environment: str) -> Iterator[Asker]:
    """A process with these variables, and with no cache, token or mirror of whoever runs the tests."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    inherited |= {"HOME": str(home), "PYTHONPATH": str(ROOT), "no_proxy": "127.0.0.1,localhost"}
    command = [sys.executable, "-c", ASKING]
    with subprocess.Popen(
        command, env=inherited | environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=home
    ) as process:
        try:
            yield Asker(process)
        finally:
            process.kill()
