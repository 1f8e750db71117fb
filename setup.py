from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="nlproar",
    version="0.1.0",
    description="How faithful are explanations of text classifiers? ROAR and Recursive ROAR",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    packages=find_packages(include=["nlproar", "nlproar.*"]),
    package_data={"nlproar": ["py.typed"], "nlproar.report": ["published.csv", "template/*"]},
    install_requires=[
        "gensim>=4.3",
        "jinja2>=3.1",
        "matplotlib>=3.8",
        "numpy>=1.26",
        "pandas>=2.2",
        "pooch>=1.8",
        "pytorch-lightning>=2.4",
        "requests>=2.31",  # pooch uses it; its errors are caught here
        "safetensors>=0.4.3",
        "scipy>=1.11",
        "scikit-learn>=1.4",
        "spacy>=3.7",
        "tabulate>=0.9",
        "threadpoolctl>=3.1",
        "torch>=2.4",
        "torchmetrics>=1.4",
        "tqdm>=4.66",
    ],
    extras_require={
        "test": [
            "build>=1.0",
            "hypothesis>=6.100",
            "mypy>=1.8",
            "pytest>=8.0",
            "pytest-xdist>=3.7",
            "ruff>=0.4",
            "setuptools>=70.1",
            "selenium>=4.15",
        ],
    },
)
