"""The packages; all else is in pyproject.toml. `assets/` stands beside them here, and inside `core` once installed."""

from setuptools import find_namespace_packages, setup

CODE = ["cxr_lens", "core", "training", "dashboard"]

setup(
    packages=[*find_namespace_packages(include=[*CODE, *(f"{name}.*" for name in CODE)]), "core.assets"],
    package_dir={"core.assets": "assets"},
)
