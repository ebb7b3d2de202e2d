# SPDX-License-Identifier: GPL-2.0
"""The download cache: interrupted, corrupt and wrong transfers, with a transfer that only copies bytes and a server on
this machine."""
import errno
import hashlib
import http.server
import os
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path
from unittest import mock

from rig import download, paths
from rig.ui import RigError

CONTENT = b"the right content " * 1000
FILE = download.Pinned("file.deb", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
URI = "http://mirror.invalid/file.deb"


class CacheCase(unittest.TestCase):
    """A cache in a scratch directory."""

    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory(prefix="with space ")
        self.addCleanup(scratch.cleanup)
        self.top = Path(scratch.name)
        for name in ("DOWNLOADS", "CACHE"):
            patch = mock.patch.object(download, name, self.top)
            patch.start()
            self.addCleanup(patch.stop)
        self.part, self.path = self.top / "file.deb.part", self.top / "file.deb"
        self.calls = 0


class Download(CacheCase):
    def append(self, served: bytes):
        """A transfer that serves `served` and resumes by appending what is beyond the part's length."""
        def transfer(files, progress) -> None:
            self.calls += 1
            for _, path in files:
                have = path.stat().st_size if path.exists() else 0
                with open(path, "ab") as out:
                    out.write(served[have:])
                progress()
        return transfer

    def obtain(self, served: bytes = CONTENT) -> Path:
        return download.obtain("file", [(FILE, URI)], self.append(served))[0]

    def test_from_nothing_then_nothing(self) -> None:
        self.assertEqual(self.obtain().read_bytes(), CONTENT)
        self.assertFalse(self.part.exists())
        self.obtain()
        self.assertEqual(self.calls, 1, "a second run must download nothing")

    def test_resumes(self) -> None:
        self.part.write_bytes(CONTENT[:500])
        self.assertEqual(self.obtain().read_bytes(), CONTENT)
        self.assertEqual(self.calls, 1)

    def test_bad_part_restarts_once(self) -> None:
        self.part.write_bytes(b"x" * 500)
        self.assertEqual(self.obtain().read_bytes(), CONTENT)
        self.assertEqual(self.calls, 2)

    def test_part_that_is_too_long(self) -> None:
        self.part.write_bytes(CONTENT + b"x")
        self.assertEqual(self.obtain().read_bytes(), CONTENT)

    def test_wrong_content_is_refused_and_not_kept(self) -> None:
        with self.assertRaisesRegex(download.Corrupt, FILE.sha256):
            self.obtain(b"evil")
        self.assertEqual(self.calls, 1, "a fresh download with a wrong hash is not retried")
        self.assertFalse(self.path.exists() or self.part.exists())

    def test_corrupt_cache_is_refused(self) -> None:
        self.obtain()
        changed = bytearray(CONTENT)
        changed[7] ^= 1
        self.path.write_bytes(changed)
        with self.assertRaises(download.Corrupt) as caught:
            download.cached(FILE)
        for words in (str(self.path), FILE.sha256, hashlib.sha256(changed).hexdigest(), "rm "):
            self.assertIn(words, str(caught.exception))

    def test_stamp_saves_hashing_until_the_file_changes(self) -> None:
        self.obtain()
        download.cached(FILE)
        with mock.patch.object(download, "sha256_of") as hashing:
            self.assertEqual(download.cached(FILE), self.path)
            hashing.assert_not_called()
        os.utime(self.path, ns=(1, 1))
        with mock.patch.object(download, "sha256_of", return_value=FILE.sha256) as hashing:
            self.assertEqual(download.cached(FILE), self.path)
            hashing.assert_called_once()

    def test_nothing_arrives(self) -> None:
        with self.assertRaisesRegex(RigError, "did not arrive"):
            download.obtain("file", [(FILE, URI)], lambda files, progress: None)

    def test_full_disk_is_noticed_before(self) -> None:
        with mock.patch.object(download.room.shutil, "disk_usage", return_value=mock.Mock(free=10)), \
             self.assertRaisesRegex(RigError, "is full"):
            self.obtain()
        self.assertEqual(self.calls, 0)

    def test_full_disk_while_writing(self) -> None:
        def transfer(files, progress) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")
        with self.assertRaisesRegex(RigError, "became full"):
            download.obtain("file", [(FILE, URI)], transfer)

    def test_lock_excludes_another_process(self) -> None:
        program = ("from pathlib import Path; from rig import download; download.CACHE = Path({0!r})\n"
                   "with download.locked(): (download.CACHE / 'got it').touch()").format(str(self.top))
        with download.locked():
            child = subprocess.Popen([sys.executable, "-c", program], cwd=paths.REPO, stderr=subprocess.PIPE, text=True)
            assert child.stderr is not None
            self.assertIn(f"process {os.getpid()}", child.stderr.readline())
            self.assertFalse((self.top / "got it").exists())
        self.assertEqual(child.wait(), 0)
        child.stderr.close()
        self.assertTrue((self.top / "got it").exists())


class Server(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT: whole under /whole, by range under /ranges, and breaks off after 100 bytes under /broken."""
    requests: list[str] = []

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        self.requests.append(asked)
        start = int(asked[len("bytes="):-1]) if asked and self.path == "/ranges" else 0
        if self.path == "/missing":
            self.send_error(404)
            return
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[:100] if self.path == "/broken" else CONTENT[start:])

    def log_message(self, format: str, *args: object) -> None:
        pass


class Https(CacheCase):
    """`over_https()` against a server on this machine."""

    def setUp(self) -> None:
        super().setUp()
        server = http.server.HTTPServer(("127.0.0.1", 0), Server)
        self.addCleanup(server.server_close)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.shutdown)
        self.base = f"http://127.0.0.1:{server.server_port}"
        Server.requests = []
        environment = mock.patch.dict(os.environ, {"no_proxy": "*"})
        environment.start()
        self.addCleanup(environment.stop)

    def get(self, where: str) -> bytes:
        return download.obtain("file", [(FILE, self.base + where)], download.over_https)[0].read_bytes()

    def test_from_nothing(self) -> None:
        self.assertEqual(self.get("/whole"), CONTENT)

    def test_resumes_by_range(self) -> None:
        self.part.write_bytes(CONTENT[:500])
        self.assertEqual(self.get("/ranges"), CONTENT)
        self.assertEqual(Server.requests, ["bytes=500-"])

    def test_server_without_ranges(self) -> None:
        self.part.write_bytes(CONTENT[:500])
        self.assertEqual(self.get("/whole"), CONTENT)

    def test_part_beyond_the_end_restarts(self) -> None:
        self.part.write_bytes(CONTENT + b"x")
        self.assertEqual(self.get("/ranges"), CONTENT)
        self.assertEqual(Server.requests, [f"bytes={len(CONTENT) + 1}-", ""])

    def test_broken_connection_keeps_what_came(self) -> None:
        with self.assertRaises(RigError):
            self.get("/broken")
        self.assertEqual(self.part.read_bytes(), CONTENT[:100])
        self.assertEqual(self.get("/ranges"), CONTENT)

    def test_not_there(self) -> None:
        with self.assertRaisesRegex(RigError, "404"):
            self.get("/missing")

    def test_refused(self) -> None:
        with self.assertRaisesRegex(RigError, "refused"):
            download.obtain("file", [(FILE, "http://127.0.0.1:1/file")], download.over_https)


if __name__ == "__main__":
    unittest.main()
