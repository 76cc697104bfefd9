"""Which folders are packages; everything else about the installation stands in pyproject.toml."""

from setuptools import find_packages, setup

# An installed eeglib carries the notebooks and the book's pages, which lie beside the package in
# a checkout, as `eeglib/_site`.
setup(
    packages=[*find_packages(include=["eeglib", "eeglib.*"]), "eeglib._site"],
    package_dir={"eeglib": "eeglib", "eeglib._site": "."},
)
