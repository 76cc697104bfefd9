"""The downloader against a server that misbehaves in every way it can."""

import hashlib
import http.server
import json
import threading
from itertools import count

import pytest

from eeglib import cli
from eeglib.datasets import DatasetError, DatasetWarning, download
from eeglib.datasets.download import FILES, RemoteFile

BODY = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(BODY).hexdigest()
HTML = b"<!DOCTYPE html><html><body>Sign in</body></html>"


class Server(http.server.ThreadingHTTPServer):
    """Serves `BODY` under paths that name the misbehaviour; notes every request."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests, self.numbers, self.released = [], {}, threading.Event()

    def url(self, path):
        return f"http://127.0.0.1:{self.server_port}/{path}"

    def handle_error(self, request, client_address):
        pass  # a client that gave up is what some tests are about


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        kind = self.path.strip("/")
        number = next(self.server.numbers.setdefault(kind, count(1)))
        self.server.requests.append((kind, self.headers.get("Range")))
        getattr(self, f"serve_{kind}")(number)

    def send(self, body, status=200, **headers):
        length = headers.pop("Content_Length", len(body))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def ranged(self, limit=None):
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        part = BODY[start:][:limit]
        headers = {"Content_Length": len(BODY) - start}
        if start:
            headers["Content_Range"] = f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"
        self.send(part, 206 if start else 200, **headers)

    def serve_good(self, number):
        self.ranged()

    def serve_breaks_once(self, number):
        self.ranged(300_000 if number == 1 else None)

    def serve_always_breaks(self, number):
        self.ranged(100_000)

    def serve_ignores_range(self, number):
        whole = BODY if number > 1 else BODY[:300_000]
        self.send(whole, Content_Length=len(BODY))

    def serve_no_such_range(self, number):
        if self.headers.get("Range"):
            self.send(b"", 416)
        else:
            self.ranged(300_000 if number == 1 else None)

    def serve_stalls(self, number):
        self.ranged(200_000)
        self.server.released.wait(10)

    def serve_missing(self, number):
        self.send(b"gone", 404)

    def serve_broken(self, number):
        self.send(b"oops", 500)

    def serve_recovers(self, number):
        self.send(b"busy", 503) if number == 1 else self.ranged()

    def serve_page(self, number):
        self.send(HTML, Content_Type="text/html; charset=utf-8")

    def serve_other(self, number):
        self.send(BODY[::-1])


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.01)


@pytest.fixture
def server():
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def offer(monkeypatch, server):
    """Make ``data`` a data set of one file at the given addresses."""

    def offer(kind, **fields):
        file = RemoteFile(name="data.bin", url=server.url(kind), places=("example.org",), **fields)
        monkeypatch.setitem(FILES, "data", (file,))

    return offer


def fetch(folder, timeout=0.5):
    return download.fetch("data", folder, timeout=timeout)


def finished(folder):
    return [p.name for p in folder.iterdir() if not p.name.startswith(".")]


def test_good(server, offer, tmp_path):
    offer("good", sha256=SHA256, n_bytes=len(BODY))
    (path,) = fetch(tmp_path / "new folder ü")
    assert path.read_bytes() == BODY
    assert sorted(finished(path.parent)) == ["checksums.json", "data.bin"]
    assert fetch(path.parent) == [path]
    assert len(server.requests) == 1  # it is there already


@pytest.mark.parametrize(
    ("kind", "resumed"),
    [("breaks_once", True), ("ignores_range", True), ("no_such_range", True), ("recovers", False)],
)
def test_recovers(server, offer, tmp_path, kind, resumed):
    offer(kind, sha256=SHA256)
    (path,) = fetch(tmp_path)
    assert path.read_bytes() == BODY
    assert any(asked for _, asked in server.requests) == resumed
    assert not list(tmp_path.glob(".*"))


def test_goes_on_in_a_later_run(server, offer, tmp_path, monkeypatch):
    offer("breaks_once", sha256=SHA256)
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    with pytest.raises(DatasetError, match="broken"):
        fetch(tmp_path)
    assert finished(tmp_path) == []  # an interrupted download never looks finished
    (path,) = fetch(tmp_path)
    assert path.read_bytes() == BODY
    assert server.requests[1][1] == "bytes=262144-"


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("missing", "404"), ("broken", "500"), ("page", "HTML page"), ("stalls", "timed out"),
     ("always_breaks", "broken"), ("other", "another checksum")],
)  # fmt: skip
def test_ends_in_a_message_that_says_what_to_do(offer, tmp_path, kind, reason):
    offer(kind, sha256=SHA256)
    with pytest.raises(DatasetError, match=reason) as caught:
        fetch(tmp_path)
    message = str(caught.value)
    where = f"put it at: {tmp_path / 'data.bin'}"
    for part in ("data.bin", "size not published", "example.org", where):
        assert part in message
    assert finished(tmp_path) == []


def test_sum_is_recorded_on_first_use_and_checked_ever_after(offer, tmp_path):
    offer("good")
    (path,) = fetch(tmp_path)
    assert json.loads((tmp_path / "checksums.json").read_text()) == {"data.bin": SHA256}
    path.write_bytes(BODY[::-1])
    with pytest.raises(DatasetError, match=r"another content than the recorded one"):
        fetch(tmp_path)
    offer("good", sha256=SHA256)  # a published sum wins over a recorded one
    with pytest.raises(DatasetError, match="another content than the published one"):
        fetch(tmp_path)


@pytest.mark.parametrize(
    ("function", "error"),
    [
        ("requests.Response.iter_content", OSError(28, "No space left on device")),
        ("pathlib.Path.mkdir", PermissionError(13, "Permission denied")),
    ],
)
def test_folder_that_takes_no_file(offer, tmp_path, monkeypatch, function, error):
    def refuse(*_, **__):
        raise error

    offer("good")
    monkeypatch.setattr(function, refuse)
    with pytest.raises(DatasetError, match=f"data cannot be written to: {error.strerror}"):
        fetch(tmp_path / "data")
    assert not (tmp_path / "data" / "data.bin").exists()


def test_files_that_only_a_person_can_get(tmp_path):
    with pytest.raises(DatasetError) as caught:
        download.fetch("randomized_trials", tmp_path)
    message = str(caught.value)
    assert "imagenet40-1000-1.pth (size not published; needed)" in message
    assert "ieee-dataport.org" in message
    assert f"put it at: {tmp_path / 'imagenet40-1000-1_split.pth'}" in message


def test_only_the_subjects_asked_for(offer, server, tmp_path, monkeypatch):
    files = tuple(
        RemoteFile(name=f"sub-{n:02d}/data.bin", url=server.url("good"), subject=n)
        for n in (1, 2, 3)
    )
    monkeypatch.setitem(FILES, "data", files)
    paths = download.fetch("data", tmp_path, subjects=[2])
    assert [p.parent.name for p in paths] == ["sub-02"]
    assert "sub-02/data.bin" in json.loads((tmp_path / "checksums.json").read_text())


def test_what_the_chapters_can_do_without_is_no_error(server, offer, tmp_path, monkeypatch):
    offer("good", sha256=SHA256)
    extra = RemoteFile(
        name="extra.txt", url=server.url("missing"), places=("example.org",), optional="an order"
    )
    monkeypatch.setitem(FILES, "data", (*FILES["data"], extra))
    with pytest.warns(DatasetWarning, match="1 of 2 files") as caught:
        (path,) = fetch(tmp_path)
    assert path.name == "data.bin"
    assert "extra.txt (size not published; optional: an order)" in str(caught[0].message)
    assert "404" in str(caught[0].message)


def command(*arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main(["download", *map(str, arguments)])
    return ended.value.code or 0


def test_command(server, offer, tmp_path, capsys):
    offer("breaks_once", sha256=SHA256)
    assert command("data", tmp_path) == 0
    shown = capsys.readouterr()
    assert str(tmp_path / "data.bin") in shown.out
    assert f"Next: eeglib run --profile data --set dataset.root={tmp_path}" in shown.out
    assert "data.bin: 100%" in shown.err  # the progress bar
    (tmp_path / "data.bin").write_bytes(b"other")
    assert command("data", tmp_path) == 2
    assert "another content than the published one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eeg_imagnet"], "no download named 'eeg_imagnet'"),
        (["things_eeg2", "--subjects", "1,11"], "has files of subjects 1, 2, 3"),
        (["eeg_imagenet", "--subjects", "1"], "has files of all subjects in one"),
        (["things_eeg2", "--subjects", "x"], "--subjects takes all"),
    ],
)
def test_command_refuses(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command(*arguments) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_table_is_complete():
    for name, files in FILES.items():
        assert len({f.name for f in files}) == len(files), name
        for file in files:
            assert file.places, file.name
            assert file.sha256 is None or len(bytes.fromhex(file.sha256)) == 32
    sums = [f.sha256 for f in FILES["things_eeg2"] if f.sha256]
    assert len(set(sums)) == len(sums) == 20
