"""Data sets by name: from disk if their bytes are right, else fetched; and how each stands."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from advlib.datasets.catalogue import NAMES, source
from advlib.datasets.dataset import Dataset
from advlib.datasets.decoding import decode
from advlib.datasets.downloads import DataUnavailable, Downloader, FileStatus

OWN: dict[str, Dataset] = {}
"""A reader's own data sets, from `load_npz`, that `load` gives under these names while this process runs."""


def load(name: str, *, download: bool = True, progress: bool = True) -> Dataset:
    """Return a data set, fetched if it is not on disk yet, its bytes checked.

    Parameters
    ----------
    name : str
        One of `NAMES`: "mnist", "cifar10", "organamnist", "bloodmnist", "pathmnist".
    download : bool
        False looks on disk only.
    progress : bool
        Show downloads on standard error.

    Returns
    -------
    Dataset
        Train and test images (n, c, h, w) float32 in [0, 1] and labels (n,) int64, in the official order.

    Raises
    ------
    ValueError
        If `name` is none of the data sets.
    DataUnavailable
        If a file is missing or corrupt and cannot be fetched; the message says which file to put where.
    """
    if isinstance(name, str) and name in OWN:
        return OWN[name]
    entry = source(name)
    try:
        return decode(name, entry.read())
    except DataUnavailable:
        if not download:
            raise
    with Downloader(progress) as downloader:
        downloader.fetch(entry)
    return decode(name, entry.read())


def rgb_medical(*, download: bool = True, progress: bool = True) -> tuple[Dataset, str]:
    """Return PathMNIST if its file is there, else BloodMNIST under that name.

    PathMNIST is only looked for on disk: an experiment does not wait for a source each time.

    Parameters
    ----------
    download, progress : bool
        As in `load`, for BloodMNIST.

    Returns
    -------
    dataset : Dataset
        Its `name` and `title` say which of the two it is.
    sentence : str
        Which data set is used and why.
    """
    try:
        dataset = load("pathmnist", download=False)
    except DataUnavailable as missing:
        dataset = load("bloodmnist", download=download, progress=progress)
        wanted = source("pathmnist").title
        return dataset, f"{dataset.title} is used in place of {wanted}, whose results are not run: {missing}"
    return dataset, f"{dataset.title} is used, from its official file."


@dataclass(frozen=True)
class DataStatus:
    """What is on disk of one data set.

    Attributes
    ----------
    name, title, licence : str
        As in `Dataset`.
    optional : bool
        Whether the experiments go on without it.
    files : tuple of FileStatus
        Each file it needs.
    size : int
        Bytes on disk, all files together.
    check : str
        "ok", "missing" or "corrupt": the worst of its files (each was hashed).
    source : str
        Where it is fetched from.
    problem : str or None
        Why `fetch` could not get it, in one sentence.
    """

    name: str
    title: str
    files: tuple[FileStatus, ...]
    size: int
    check: str
    source: str
    licence: str
    optional: bool = False
    problem: str | None = None

    @property
    def present(self) -> bool:
        """Whether every file is there and matches its checksum."""
        return self.check == "ok"


def fetch(names: Iterable[str] | None = None, *, progress: bool = True) -> list[DataStatus]:
    """Fetch what is not on disk yet, and say how each data set stands.

    Parameters
    ----------
    names : iterable of str, optional
        Keys of `load`; all of them by default.
    progress : bool
        Show downloads on standard error.

    Returns
    -------
    list of DataStatus
        In the order asked. A data set that could not be had does not keep the others from coming: its `problem`
        says why and which file to put where.

    Raises
    ------
    ValueError
        If a name is none of the data sets.
    """
    names = NAMES if names is None else (names,) if isinstance(names, str) else tuple(names)
    for name in names:
        source(name)
    results = []
    with Downloader(progress) as downloader:
        for name in names:
            row, problem = _status(name), None
            if not row.present:
                try:
                    downloader.fetch(source(name))
                except DataUnavailable as unavailable:
                    problem = str(unavailable)
                row = replace(_status(name), problem=problem)
            results.append(row)
    return results


def status(names: Iterable[str] | None = None) -> list[DataStatus]:
    """Return how each data set stands on disk; every file there is hashed, nothing is fetched or changed."""
    return [_status(name) for name in (NAMES if names is None else names)]


def _status(name: str) -> DataStatus:
    entry = source(name)
    files = tuple(file.status for file in entry.files)
    checks = {file.check for file in files}
    check = next(c for c in ("corrupt", "missing", "ok") if c in checks)
    size = sum(file.size for file in files)
    return DataStatus(name, entry.title, files, size, check, entry.source, entry.licence, entry.optional)
