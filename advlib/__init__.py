"""Detecting adversarial examples in batches: the library. The papers' reruns are the package `compendium`.

Its rooms, in the order of the flow; a room imports only rooms above its own line (a test reads this list):

    paths        where data, weights and caches lie; files whole or not at all
    checks       arrays at the public border
    progress     signs of life of anything over a few seconds
    tasks        pieces of work, here or on a Dask cluster
    chunks       rows of arrays larger than memory, a block at a time
    environment  versions and hardware behind a run's numbers
    figures      the look of figures, and saving them
    datasets     the papers' image data sets, and the reader's own files
    architectures  layers of the papers' classifiers
    n2gem        the networks of VS22's authors: fetched, checked
    models       the papers' classifiers and their trained weights
    training     how those weights were made
    ulsif        density ratios, one or many at once
    prdc         density, coverage, precision, recall
    attacks      FGSM, TGSM, PGD, JSMA, boundary; harmless changes; attacked images on disk
    detectors    calibrated tests of one batch or a stream
    cli          the command line
"""

__version__ = "0.1.0"
