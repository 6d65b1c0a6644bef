"""Compiles the kernels of sparse_rnn/engine/csrc while the package is installed, where there is a C compiler.

A hook of hatchling's and not scikit-build-core: there is nothing to configure, as the kernels include no header of
Python's or torch's. CMake would be one more thing to download, and scikit-build-core's override that lets an
installation succeed without a compiler starts the build a second time; here that is an ``except``.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import sys_tags

ENGINE = Path("sparse_rnn", "engine")
KERNELS = ENGINE / "_kernels.so"
FLAGS = ["-O3", "-std=c11", "-fPIC", "-Wno-psabi", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
# What each processor takes beside FLAGS; which of them runs is chosen when the kernels are loaded.
PLAIN = {"plain": ["-DVECTOR_BYTES=16"]}
AVX2 = ["-mavx2", "-mfma"]
AVX512 = ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mprefer-vector-width=512"]
NEON = {"neon": ["-DVECTOR_BYTES=16"]}
X86_64 = {**PLAIN, "avx2": ["-DVECTOR_BYTES=32", *AVX2], "avx512": ["-DVECTOR_BYTES=64", *AVX2, *AVX512]}


class KernelsHook(BuildHookInterface):
    """Puts the kernels into a wheel, or beside the sources of an editable installation."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; without kernels the wheel is pure, and the package computes with torch's own operations."""
        self._folder = tempfile.TemporaryDirectory()
        editable = version == "editable"
        # Those of older sources must not stay where the new ones do not compile.
        if editable:
            Path(self.root, KERNELS).unlink(missing_ok=True)
        try:
            compiled = compiled_kernels(Path(self.root, ENGINE, "csrc"), Path(self._folder.name))
        except (OSError, subprocess.CalledProcessError) as error:
            self.app.display_warning(f"The sparse kernels are not built, torch stands in for them: {reason(error)}")
            return
        if editable:
            shutil.copy(compiled, Path(self.root, KERNELS))
        else:
            build_data["force_include"][str(compiled)] = KERNELS.as_posix()
            build_data["pure_python"], build_data["tag"] = False, f"py3-none-{platform_tag()}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was compiled."""
        self._folder.cleanup()


def compiled_kernels(sources: Path, folder: Path) -> Path:
    """Compile the kernels and return where they are.

    Args:
        sources: The folder of the C files.
        folder: Where to put what is compiled.

    Raises:
        OSError: If there is no compiler.
        subprocess.CalledProcessError: If it fails.
    """
    if sys.platform == "win32":
        raise OSError("they are written for the compilers of Linux and macOS.")
    compiler = shlex.split(os.environ.get("CC", "cc"))
    backends = {"x86_64": X86_64, "aarch64": NEON, "arm64": NEON}.get(platform.machine(), PLAIN)
    units = {name: (f"{name}.c", []) for name in ("dispatch", "threads", "pattern", "windows")}
    for backend, own in backends.items():
        for is_double in (0, 1):
            flags = [f"-DBACKEND={backend}", f"-DREAL_IS_DOUBLE={is_double}", *own]
            units[f"{backend}{is_double}"] = ("sequence.c", flags)

    def compile_unit(name: str) -> str:
        source, own = units[name]
        made = str(folder / f"{name}.o")
        run([*compiler, *FLAGS, *own, "-c", str(sources / source), "-o", made])
        return made

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_unit, units))
    linked = folder / KERNELS.name
    run([*compiler, "-shared", *objects, "-o", str(linked), "-lm", "-ldl"])
    return linked


def run(command: list[str]) -> None:
    """Run a compiler, whose messages are for the exception alone."""
    subprocess.run(command, check=True, capture_output=True, text=True)


def reason(error: OSError | subprocess.CalledProcessError) -> str:
    """Return in one line why there are no kernels."""
    if isinstance(error, OSError):
        return str(error)
    said = [line for line in error.stderr.splitlines() if "error" in line]
    return said[0] if said else f"{error.cmd[0]} failed."


def platform_tag() -> str:
    """Return the platform of this machine, without a promise to run on others of its kind."""
    return next(tag.platform for tag in sys_tags() if not tag.platform.startswith(("manylinux", "musllinux")))
