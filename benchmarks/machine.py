"""One line that says where a benchmark ran."""

import os
import platform
from pathlib import Path

import torch


def describe() -> str:
    """CPU model, threads, Python and PyTorch versions."""
    threads = f"{torch.get_num_threads()} threads of {os.cpu_count()} CPUs"
    return f"{_cpu()}, {threads}, Python {platform.python_version()}, torch {torch.__version__}"


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
