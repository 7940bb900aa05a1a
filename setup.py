"""Installs fedjax_health: `pip install .`, `pip install .[test]`, `pip install .[sweep]`, `pip install .[dev]`."""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "([^"]+)"', (ROOT / "fedjax_health/__init__.py").read_text()).group(1)

TEST = ["pytest>=8", "pytest-xdist>=3.5"]
SWEEP = ["ray>=2.60,<3"]  # many machines; one needs none of it
DEV = ["ruff==0.17.*", "pyright[nodejs]>=1.1.400", "pre-commit>=4"]

setup(
    name="fedjax_health",
    version=VERSION,
    description="Federated, differentially private generation of synthetic health-IoT data in one compiled JAX program",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["fedjax_health*", "launch*", "configs*"]),
    package_data={"fedjax_health.report": ["*.html.j2", "*.css"], "fedjax_health.sweep": ["*.html.j2"]},
    install_requires=[
        "jax>=0.10,<0.11",
        "flax>=0.12.4,<0.13",
        "optax>=0.2.8,<0.3",
        "orbax-checkpoint>=0.12,<0.13",
        "dp-accounting==0.6.*",
        "cryptography>=44",
        "chex>=0.1.91",
        "numpy>=2.1,<3",
        "ml-collections>=1.1",
        "absl-py>=2.1",
        "tensorboard>=2.20",
        "tensorboardX>=2.6.4",
        "scipy>=1.14",
        "scikit-learn>=1.7",
        "imbalanced-learn>=0.14,<0.15",
        "mbi>=2.0,<3",
        "threadpoolctl>=3.5",
        "statsmodels>=0.14.5",
        "pandas>=2.3,<4",
        "pyarrow>=18",
        "matplotlib>=3.10",
        "jinja2>=3.1",
        "rich>=13.9",
    ],
    extras_require={"test": TEST, "sweep": SWEEP, "dev": TEST + DEV},
)
