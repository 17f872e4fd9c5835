"""The compendium: what reruns the two papers, beside the library `advlib`, which knows neither.

    paths                    where things lie
    networks · spread        the papers' networks again with other seeds; the experiments with them
    claims                   printed numbers, records of runs, verdicts, the report
    runner · cli             notebooks run headlessly: advlib run | report | exercises
    exercises                checks of what a reader writes, and the notebooks' exercise cells
    common                   the papers' protocols and tables, as several notebooks use them
    nb01_intuition … nb13    one module (or folder) a notebook, named after it; none imports another
    authors                  VS22's experiments with its authors' networks; the only module that imports notebooks

A notebook's folder holds its experiment (`measure`), what is made of it (`judge`) and its `figures`.
"""
