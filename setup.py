"""Installs ``mmspike``, with ``configs/`` and ``tools/`` inside the package as ``mmspike/.mim``."""

import os
import re
import shutil
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
SHARED = ("configs", "tools", "model-index.yml")  # what OpenMMLab packages ship under .mim


class BuildWithMim(build_py):
    """Copy the shared folders into a built package, link them in an editable one."""

    def run(self) -> None:
        """Build the package, then add ``.mim``."""
        super().run()
        target = Path("mmspike" if self.editable_mode else f"{self.build_lib}/mmspike") / ".mim"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for name in SHARED:
            if self.editable_mode:
                os.symlink(ROOT / name, target / name)
            else:
                copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
                copy(ROOT / name, target / name)


version = re.search(r'__version__ = "(.+)"', (ROOT / "mmspike/__init__.py").read_text())[1]

kernels = Extension(  # plain C functions, loaded by mmspike/native/library.py
    "mmspike.native._kernels",
    sources=["mmspike/native/csrc/native.cpp"],
    depends=sorted(str(p.relative_to(ROOT)) for p in (ROOT / "mmspike/native/csrc").glob("*.h")),
    language="c++",
    extra_compile_args=[
        "-std=c++17",
        "-O3",
        "-fopenmp",
        "-ffp-contract=off",  # a fused multiply-add would move thresholds
        "-fno-math-errno",
        "-fno-trapping-math",
        "-g0",
    ],
    extra_link_args=["-fopenmp"],
    optional=True,  # without a compiler, plain torch does the same
)

setup(
    name="mmspike",
    version=version,
    description="Dense prediction with spiking neural networks: an OpenMMLab plugin",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    author="The mmspike developers",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: C++",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    keywords="spiking neural networks, object detection, semantic segmentation, OpenMMLab",
    packages=find_packages(include=["mmspike", "mmspike.*"]),
    package_data={
        "mmspike": ["py.typed", "native/csrc/*.cpp", "native/csrc/*.h", "neurons/kernels/*.cu"]
    },
    ext_modules=[kernels],
    python_requires=">=3.11",
    install_requires=[
        "torch>=2.6",
        "numpy",
        "safetensors",
        "spikingjelly>=2.0",
        "onedl-mmengine>=0.10.8",
    ],  # and mmcv, which pip cannot choose: see mmspike/installed.py
    extras_require={
        "det": [
            "onedl-mmcv>=2.3",
            "onedl-mmdetection>=3.4",
            "pycocotools",
            "opencv-python-headless",
        ],
        "seg": ["onedl-mmsegmentation>=1.3", "ftfy", "regex", "opencv-python-headless"],
        "cls": ["onedl-mmpretrain>=1.3.6", "timm>=1.0", "torchvision", "opencv-python-headless"],
        "cuda": ["cupy-cuda13x"],
        "dev": ["pytest", "pytest-xdist", "pytest-cov", "ruff", "mypy", "pre-commit", "build"],
        "docs": ["mkdocs-material", "mkdocstrings-python"],
    },
    cmdclass={"build_py": BuildWithMim},
)
