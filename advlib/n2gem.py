"""The networks that VS22's authors trained: found, fetched, checked, and their parameters under our modules' names.

The weights are the authors' [1]_, under the MIT licence. They are no part of this repository or package. `read` takes
them from a folder that the caller or the environment variable `ADVLIB_N2GEM` names, else from `paths.DOWNLOADS`, where
they are fetched to from the authors' repository at a fixed commit. A file counts only if its checksum is the expected
one, either of the authors' own file or of the same tensors as safetensors.

References
----------
.. [1] D. K. Venkatesh and P. Steinbach, "Detecting adversarial examples in batches", arXiv:2206.08738 (2022); code
   and weights: github.com/danushv07/n2gem, folder ad_attack/chkpt_files.
"""

import hashlib
import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load

from advlib import paths
from advlib.datasets.downloads import Archive, DataUnavailable, Downloader, File, FileSet

SETTING = "ADVLIB_N2GEM"
"""Environment variable that names a folder with the weights."""

COMMIT = "f47d8faa2b4ec4cc2d453ef500364e8cde97415e"
_ADDRESS = f"https://raw.githubusercontent.com/danushv07/n2gem/{COMMIT}/ad_attack/chkpt_files/"

# Their module → ours, whose places count in the sequence `hidden`.
_MNIST = {"conv1": "hidden.0", "conv2": "hidden.3", "fc1": "hidden.8", "fc2": "hidden.11", "fc3": "head"}
_CONVOLUTIONS = dict(zip(("conv1", "conv2", "conv3", "conv4", "conv5"), (0, 3, 7, 10, 13), strict=True))
_MEDMNIST = {f"{name}.{i}": f"hidden.{place + i}" for name, place in _CONVOLUTIONS.items() for i in (0, 1)}
_MEDMNIST |= {"fc.0": "hidden.18", "fc.2": "hidden.20", "fc.4": "head"}


@dataclass(frozen=True)
class Weights:
    """One network of the authors.

    Attributes
    ----------
    original, sha256, size : str, str, int
        The authors' file, its checksum, and its bytes, about.
    converted, converted_sha256 : str
        The same tensors as safetensors.
    modules : dict
        Their module's name → ours.
    """

    original: str
    sha256: str
    size: int
    converted: str
    converted_sha256: str
    modules: Mapping[str, str]

    @property
    def fetched(self) -> FileSet:
        """The authors' file, as `advlib.datasets.downloads` fetches it."""
        file = File("n2gem", self.original, f"sha256:{self.sha256}", self.size)
        archive = Archive(file.name, file.digest, file.size, {"": file}, urls=(_ADDRESS + file.name,))
        return FileSet(f"VS22's network {file.name}", (file,), (archive,), ())


WEIGHTS = {
    "mnist-n2gem": Weights(
        "fastai_MnNet_weights.pth", "e9e96e6d2d19f4a2bdaca808f4df669b2bcf63d05f827a57342e48cc37b10993", 1_800_000,
        "mnist.safetensors", "0a7092296983f07cd9ea6f7355d41a229d3755a63c8ec99e2264c38b4d283d7f", _MNIST,
    ),
    "organmnist-n2gem": Weights(
        "fastai_organmnist_99_weights.pt", "e2d203500c9258014047c41f762d283948613fcd76cb294c2ab8c3554958829d", 980_000,
        "organmnist.safetensors", "b0ba50a5eaab0dd333ad467c6381cd380ed211d5df85c2016daa11b8e00b4209", _MEDMNIST,
    ),
    "pathmnist-n2gem": Weights(
        "fastai_pathmnist_96_weights.pt", "35e3b7e432da6c93b40f918c44d2296b88fb2af8661a88dde1937a1888d776da", 980_000,
        "pathmnist.safetensors", "9c547a7cafe801cd0fa116ce5a912884251a0dea4c43e99d465871942d6f22b3", _MEDMNIST,
    ),
}  # fmt: skip
"""Name for `advlib.models.load_trained` → the authors' file."""


def card(name: str) -> dict[str, Any]:
    """Return what is known of one of `WEIGHTS`; of the training only what the paper says, so there is no history."""
    weights = WEIGHTS[name]
    return {
        "name": name,
        "origin": f"github.com/danushv07/n2gem, commit {COMMIT}, ad_attack/chkpt_files/{weights.original}",
        "licence": "MIT",
        "sha256": weights.sha256,
    }


def read(name: str, folder: str | os.PathLike | None = None, *, fetch: bool = True) -> dict[str, torch.Tensor]:
    """Return the parameters of one of `WEIGHTS` under the names of our modules.

    Parameters
    ----------
    name : str
        Key of `WEIGHTS`.
    folder : path, optional
        Where the authors' file or its safetensors copy lies; by default the one that `SETTING` names, else the
        downloads.
    fetch : bool
        Whether a missing file is fetched; never into a folder that was named.

    Returns
    -------
    dict
        Key of `state_dict` → float32 tensor (batch counts int64), normalisation left out.

    Raises
    ------
    FileNotFoundError
        If the weights are neither there nor to be had; the message says what to do.
    ValueError
        For a file with another checksum, or with other parameters than the network's.
    """
    weights = WEIGHTS[name]
    named = folder if folder is not None else os.environ.get(SETTING)
    if named:
        content, converted = _from_folder(name, weights, Path(named).expanduser())
    else:
        content, converted = _from_downloads(name, weights, fetch), False
    state = load(content) if converted else torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return dict(_renamed(name, state, weights.modules))


def _from_folder(name: str, weights: Weights, folder: Path) -> tuple[bytes, bool]:
    """Return a checked file's content, and whether it is the safetensors copy."""
    files = ((weights.converted, weights.converted_sha256, True), (weights.original, weights.sha256, False))
    for file, expected, converted in files:
        if (folder / file).is_file():
            content = (folder / file).read_bytes()
            found = hashlib.sha256(content).hexdigest()
            if found != expected:
                raise ValueError(
                    f"the weights {folder / file} must have the sha256 {expected}, but have {found}; put the authors' "
                    f"file {weights.original} of commit {COMMIT[:7]} there"
                )
            return content, converted
    raise FileNotFoundError(
        f"no weights of {name} in {folder}: put {weights.original} from {_ADDRESS} there, or take away the folder's "
        f"name (the argument or the environment variable {SETTING}) to have it fetched"
    )


def _from_downloads(name: str, weights: Weights, fetch: bool) -> bytes:
    try:
        try:
            return weights.fetched.read()[0]
        except DataUnavailable:
            if not fetch:
                raise
        with Downloader() as downloader:
            downloader.fetch(weights.fetched)
        return weights.fetched.read()[0]
    except DataUnavailable as error:
        raise FileNotFoundError(
            f"no weights of {name}, which are their authors' and do not come with this repository: {error}, or name "
            f"the folder that holds them in the environment variable {SETTING} (here: {paths.shown(paths.DOWNLOADS)})"
        ) from None


def _renamed(
    name: str, state: Mapping[str, torch.Tensor], modules: Mapping[str, str]
) -> Iterator[tuple[str, torch.Tensor]]:
    for key, value in state.items():
        module, _, parameter = key.rpartition(".")
        if module not in modules:
            raise ValueError(f"the weights of {name} must have the modules {', '.join(modules)}, but have {key!r}")
        yield f"{modules[module]}.{parameter}", value
