"""The report as a site: a folder of pages that a browser opens from disk, and that asks no host for anything.

maths       LaTeX to MathML, and the font that draws it
markdown    text of notebooks, docs and docstrings, with maths, links and pictures that stay inside the site
notebook    an executed notebook as a page
reference   the library's public interface, from its docstrings
runs        what each notebook's run left behind
build       all of it put together
"""
