"""Files that someone made on purpose: bombs, lies about sizes, paths that climb, code where data belongs."""

import contextlib
import hashlib
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import nbformat
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tally import case, times
from typer.testing import CliRunner

from advlib import cli, detectors, n2gem, paths
from advlib.datasets import files, load_npz
from advlib.datasets.downloads import Archive, DataUnavailable, Downloader, File, FileSet
from advlib.detectors import DensityTest, saving
from advlib.prdc import ReferenceManifold
from compendium import runner
from compendium.site.markdown import Pages
from compendium.site.notebook import body

MOST = 200e6  # bytes that a refusal may take
RUN = CliRunner()


class Harm:
    """What a pickle runs when it is loaded."""

    def __reduce__(self):
        return os.mkdir, ("harmed",)


@pytest.fixture(autouse=True)
def nothing_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / "harmed").exists(), "code in a file was run"


def refused(path, load=files.read):
    """Refuse in one sentence that names the file, without taking memory."""
    case()
    tracemalloc.start()
    try:
        with pytest.raises((ValueError, FileNotFoundError)) as caught:
            load(path)
        assert tracemalloc.get_traced_memory()[1] < MOST
    finally:
        tracemalloc.stop()
    words = str(caught.value)
    assert Path(path).name in words and "\n" not in words, words
    return words


def npy(header, content=b""):
    text = header.encode() + b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content


HEADERS = [
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000)}",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (9223372036854775807, 4)}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 4)}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 10000000000)}",
    "{'descr': '|O', 'fortran_order': False, 'shape': (4,)}",
    "{'descr': '<U1000000000', 'fortran_order': False, 'shape': (4,)}",
    "{'descr': [('x', '<f4', (1000000000,))], 'fortran_order': False, 'shape': (4,)}",
    "{'descr': '<f4', 'fortran_order': False}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), 'more': __import__('os')}",
    "__import__('os').mkdir('harmed')",
    "(" * 3000,
    "{'descr': '<f4', 'fortran_order': 7, 'shape': 'word'}",
]


@pytest.mark.parametrize("header", HEADERS)
def test_array_headers_that_lie(header, tmp_path):
    (tmp_path / "a.npy").write_bytes(npy(header, b"\0" * 64))
    refused("a.npy")
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile("a.npz", "w", compression) as archive:
            archive.writestr("images.npy", npy(header, b"\0" * 64))
            archive.writestr("train_images.npy", npy(header, b"\0" * 64))
            archive.writestr("train_labels.npy", npy(header, b"\0" * 64))
        refused("a.npz")
        refused("a.npz", load_npz)


def test_pickles_under_every_name(tmp_path):
    for name in ("images", "x", "train_images", "labels", "arr_0"):
        np.savez("a.npz", **{name: np.array([Harm()] * 3, dtype=object)})
        refused("a.npz")
    np.save("a.npy", np.array([Harm()], dtype=object))
    refused("a.npy")
    for name in ("a.npy", "a.npz", "a.png", "d.safetensors"):
        Path(name).write_bytes(pickle.dumps(Harm()))
        refused(name, detectors.load if name.endswith("tensors") else files.read)
    np.savez("b.npz", train_images=np.zeros((2, 8, 8), np.uint8), train_labels=np.array([Harm()] * 2, dtype=object))
    refused("b.npz", load_npz)


def test_pickled_weights_of_the_authors_are_checked_before_they_are_read(tmp_path):
    (tmp_path / n2gem.WEIGHTS["mnist-n2gem"].original).write_bytes(pickle.dumps(Harm()))
    with pytest.raises(ValueError, match="must have the sha256"):
        n2gem.read("mnist-n2gem", tmp_path)
    case()


def test_zip_bombs(tmp_path):
    """A quarter of a gigabyte of zeros in a megabyte: the header decides before anything is unpacked."""
    zeros = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = b"".join(zeros.compress(bytes(2**20)) for _ in range(256)) + zeros.flush()
    for keys in (("images",), ("train_images", "train_labels")):
        with zipfile.ZipFile("bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            for key in keys:
                archive.writestr(
                    f"{key}.npy", npy("{'descr': '|u1', 'fortran_order': False, 'shape': (9, 8, 8)}", packed)
                )
        for load in (files.read, load_npz):
            case()
            tracemalloc.start()
            with contextlib.suppress(ValueError):
                load("bomb.npz")
            assert tracemalloc.get_traced_memory()[1] < MOST
            tracemalloc.stop()
    with zipfile.ZipFile("bomb.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive, archive.open(
        "train_images.npy", "w", force_zip64=True
    ) as out:  # fmt: skip
        out.write(npy("{'descr': '|u1', 'fortran_order': False, 'shape': (4194304, 8, 8)}"))
        for _ in range(128):
            out.write(bytes(2**21))
    refused("bomb.npz", load_npz)


def test_members_that_climb_out_are_never_unpacked(tmp_path, monkeypatch):
    """Members are read by name; a link or a path that leads outside is neither followed nor written."""
    monkeypatch.setattr(paths, "DOWNLOADS", tmp_path / "downloads")
    content = b"right bytes"
    for evil in ("../escaped", "/tmp/advlib-escaped", "..\\escaped"):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz") as tar:
            for name in (evil, "a.bin"):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        file = File("set", "a.bin", digest, len(content))
        archive = Archive("all.tar.gz", "sha256:" + hashlib.sha256(out.getvalue()).hexdigest(), 1, {"a.bin": file},
                          urls=("http://[::1]:9/all",))  # fmt: skip
        file.path.parent.mkdir(parents=True, exist_ok=True)
        file.path.unlink(missing_ok=True)
        file.path.with_name("all.tar.gz").write_bytes(out.getvalue())
        with Downloader(progress=False) as downloader:
            downloader.fetch(FileSet("a set", (file,), (archive,), ()))
        assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
            ".advlib.lock",
            "a.bin",
            "all.tar.gz",
        ]
        case()
    link = Archive("all.tar.gz", archive.digest, 1, {"link": file}, urls=("http://[::1]:9/all",))
    file.path.unlink()
    with pytest.raises(DataUnavailable, match=r"link|a\.bin"), Downloader(progress=False) as downloader:
        downloader.fetch(FileSet("a set", (file,), (link,), ()))
    case()


def safetensors(header, content=b"\0" * 64):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def entry(begin, end, shape=(4,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


TENSORS = {
    "overlapping": safetensors({"a": entry(0, 16), "b": entry(8, 24)}),
    "beyond the end": safetensors({"a": entry(0, 1 << 40, (1 << 38,))}),
    "negative": safetensors({"a": entry(-16, 0)}),
    "a hole": safetensors({"a": entry(0, 16), "b": entry(32, 48)}),
    "absurd shape": safetensors({"a": entry(0, 16, (1 << 62, 1 << 62))}),
    "header larger than the file": struct.pack("<Q", 1 << 60) + b"{}",
    "no JSON": safetensors(b"\xff" * 40),
    "deep": safetensors(b"[" * 50_000),
    "twice the same": safetensors(b'{"a":%b,"a":%b}' % ((json.dumps(entry(0, 16)).encode(),) * 2)),
    "unknown type": safetensors({"a": entry(0, 16, dtype="PICKLE")}),
}  # fmt: skip


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("load", [detectors.load, ReferenceManifold.load], ids=["detector", "manifold"])
def test_safetensors_that_lie(name, load, tmp_path):
    (tmp_path / "d.safetensors").write_bytes(TENSORS[name])
    refused("d.safetensors", load)


RNG = np.random.default_rng(0)


@settings(max_examples=times(40, 600), suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_detector_whose_words_were_rewritten_and_sealed_again(data, tmp_path_factory):
    """Someone who can seal may write any JSON: it is a test that works, or it is refused; nothing else."""
    path = tmp_path_factory.getbasetemp() / "sealed.safetensors"
    DensityTest(2, draws=19).fit(RNG.normal(size=(20, 2)), RNG.normal(size=(10, 2))).save(path)
    words, tensors = saving.read(path)
    told = json.loads(words)
    leaves = []

    def walk(node, keys=()):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            leaves.append((*keys, key))
            if isinstance(value, dict | list):
                walk(value, (*keys, key))

    walk(told)
    *where, last = data.draw(st.sampled_from(leaves))
    node = told
    for key in where:
        node = node[key]
    junk = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5)
    node[last] = data.draw(junk | st.lists(junk, max_size=3) | st.dictionaries(st.text(max_size=3), junk, max_size=2))
    saving.write(path, told, tensors)
    case()
    try:
        test = detectors.load(path)
        assert 0 < test.test(RNG.normal(size=(5, 2))).p_value <= 1
    except (ValueError, FileNotFoundError) as error:
        assert str(error), "an error without words"


def png(width, height):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(100_000, 100_000), (2**31 - 1, 1), (1, 2**31 - 1), (20_000, 20_000), (0, 0)])
def test_pictures_with_absurd_sizes_in_their_header(size, tmp_path):
    (tmp_path / "a.png").write_bytes(png(*size))
    refused("a.png")
    bmp = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, *size, 1, 24, 0, 0, 0, 0, 0, 0)
    (tmp_path / "a.bmp").write_bytes(bmp)
    refused("a.bmp")


def test_a_folder_with_a_pipe_and_a_device(tmp_path):
    """Neither is opened: a pipe would wait for ever."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("L", (8, 8)).save(folder / "a.png")
    os.mkfifo(folder / "b.png")
    refused(folder / "b.png")
    with pytest.raises(ValueError, match=r"b\.png"):
        files.read(folder)
    (folder / "b.png").unlink()
    (folder / "c.npy").symlink_to("/dev/zero")
    (folder / "d.png").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=r"d\.png"):
        files.read(folder)
    refused(folder / "c.npy")
    os.mkfifo(folder / "e.npz")
    refused(folder / "e.npz")
    refused(folder / "e.npz", load_npz)
    refused(folder / "e.npz", detectors.load)
    taken = [path.name for path in files.arriving(folder, interval=0.01, idle=0.05)]
    assert taken == ["a.png"]
    case(4)


@pytest.mark.parametrize(
    "source",
    ["__import__('os').mkdir('harmed')", "seed = __import__('os').mkdir('harmed')", "seed = (lambda: 1)()", "import os",
     "seed = 0; exec('1')", "a, b = 1, 2", "seed: int = 0", "for seed in (1,): pass", "seed = [x for x in (1,)]",
     "def f(): pass",
     "seed = 1 +", "seed = f'{1}'", "seed[0] = 1", "seed = " + "-" * 5000 + "1"],
)  # fmt: skip
def test_parameters_that_are_code_are_not_run(source, tmp_path):
    cell = nbformat.v4.new_code_cell(source, metadata={"tags": ["parameters"]})
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "99_toy.ipynb")
    with pytest.raises(ValueError, match="99_toy"):
        runner.defaults(tmp_path / "99_toy.ipynb")
    case()


@pytest.mark.parametrize(
    "value", ["!!python/object/apply:os.mkdir [harmed]", "!!python/name:os.system", "*unknown", "&a [*a]"]
)
def test_parameters_of_the_command_line_are_plain(value):
    result = RUN.invoke(cli.app, ["run", "03", "-p", f"draws={value}"])
    assert result.exit_code == 2 and "Traceback" not in result.output + result.stderr
    case()


NAMES = [
    "<script>alert(1)<script>.npy", "a&b<c>.npy", "[red]bold[red].npy", "\x1b[31mred.npy", "**bold** `x`.npy",
    "a\nb.npy", "$x^2$.npy", "\u202eevil.npy", "'\"; rm -rf.npy", "[bold].npy", "[.npy", "%s%n.npy", "{0}.npy",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_file_names_that_are_markup(name, tmp_path):
    """On a terminal and in JSON a name is a name: no colour, no second line, no end of a tag is missed."""
    np.savez(tmp_path / "r.npz", images=(RNG.random((60, 8, 8)) * 255).astype(np.uint8))
    assert RUN.invoke(cli.app, ["fit", "r.npz", "-o", "d", "--draws", "19"]).exit_code == 0
    np.save(tmp_path / name, RNG.random((5, 8, 8), dtype=np.float32))
    result = RUN.invoke(cli.app, ["detect", "d", name, "--no-figure"])
    assert result.exit_code in (0, 1), result.output + result.stderr
    told = json.loads(RUN.invoke(cli.app, ["detect", "d", name, "--json"]).stdout)
    assert name in told["batch"]
    (tmp_path / name).write_bytes(b"")
    result = RUN.invoke(cli.app, ["detect", "d", name])
    assert result.exit_code == 2 and result.stderr.count("\n") == 1 and "Traceback" not in result.stderr
    case(3)


def test_the_site_escapes_what_runs_print():
    """Outputs and errors are text; only a cell's own HTML output, made by the notebook's code, is HTML."""
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    outputs = [
        nbformat.v4.new_output("stream", name="stdout", text=evil),
        nbformat.v4.new_output("error", ename=evil, evalue=evil, traceback=[evil]),
        nbformat.v4.new_output("display_data", {"text/plain": evil}),
        nbformat.v4.new_output("display_data", {"image/png": "AAAA", "text/plain": ""}, metadata={"alt": f'" {evil}'}),
    ]
    cell = nbformat.v4.new_code_cell("x = '</pre>" + evil + "'")
    cell.outputs = outputs
    html, _ = body(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# T"), cell]), Pages())
    assert "<script" not in html and "<img src=x" not in html
    case(5)


def test_links_that_run_code_are_not_links():
    html, _ = Pages().html("[a](javascript:alert(1)) [b](data:text/html,x) ![c](javascript:alert(1))")
    assert 'href="javascript' not in html and 'href="data' not in html and 'src="javascript' not in html
    case(3)


def test_no_file_makes_the_command_line_print_a_traceback(tmp_path):
    """The same from outside, in a process of its own: status 2 and one line."""
    (tmp_path / "d").write_bytes(TENSORS["overlapping"])
    np.save(tmp_path / "b.npy", np.zeros((3, 8, 8), np.float32))
    command = [sys.executable, "-m", "advlib", "detect", "d", "b.npy"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert found.returncode == 2 and found.stdout == "" and found.stderr.count("\n") == 1
    case()
