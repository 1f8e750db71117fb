"""The package: what it needs, its extras, and the command `nlproar`."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "nlproar/__init__.py").read_text(encoding="utf-8"), re.M)

REPORT = ["jinja2>=3.1", "matplotlib>=3.8", "pandas>=2.2", "scikit-learn>=1.4", "scipy>=1.11", "threadpoolctl>=3.1"]
WORD2VEC = ["gensim>=4.3"]
CAPTUM = ["captum>=0.7", "scikit-learn>=1.4"]
TENSORBOARD = ["tensorboard>=2.16"]
TRANSFORMERS = ["transformers>=5.0"]
TEST = [
    "accelerate>=1.1",  # for the Trainer of transformers, a peer of the benchmark
    "build>=1.0",
    "hypothesis>=6.100",
    "mypy>=1.8",
    "pytest>=8.0",
    "pytest-xdist>=3.7",
    "ruff>=0.4",
    "selenium>=4.15",
    "setuptools>=70.1",
]

setup(
    name="nlproar",
    version=VERSION[1],
    description="How faithful are explanations of text classifiers? ROAR and Recursive ROAR",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=find_packages(include=["nlproar", "nlproar.*"]),
    package_data={"nlproar": ["py.typed"], "nlproar.report": ["published.csv", "template/*"]},
    entry_points={"console_scripts": ["nlproar = nlproar.cli:main"]},
    install_requires=[
        "numpy>=2.2",
        "pooch>=1.8",
        "pytorch-lightning>=2.4",
        "requests>=2.31",  # pooch uses it; its errors are caught here
        "safetensors>=0.4.3",
        "spacy>=3.7",
        "tabulate>=0.9",
        "torch>=2.4",
        "torchmetrics>=1.4",
        "tqdm>=4.66",
    ],
    extras_require={
        "report": REPORT,  # nlproar report, nlproar synthetic, and the tables of nlproar.api
        "captum": CAPTUM,  # the measures of nlproar/explain/perturbation.py
        "tensorboard": TENSORBOARD,  # --tensorboard
        "transformers": TRANSFORMERS,  # --model
        "word2vec": WORD2VEC,  # the vectors of MIMIC
        "all": REPORT + CAPTUM + TENSORBOARD + TRANSFORMERS + WORD2VEC,
        "test": REPORT + CAPTUM + TENSORBOARD + TRANSFORMERS + WORD2VEC + TEST,
    },
)
