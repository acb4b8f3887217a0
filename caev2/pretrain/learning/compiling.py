"""Whether steps are compiled: torch's compiler needs one of C or C++ on the machine, and Python's headers."""

import os
import shutil
import sysconfig
from pathlib import Path

from caev2.errors import ConfigError
from caev2.pretrain.recipes import PretrainRecipe
from caev2.progress import Progress


def compiles(recipe: PretrainRecipe, device: str, progress: Progress) -> bool:
    """As the recipe says; if it says nothing, on GPUs, where the machine has what it takes.

    Args:
        recipe: Its `compile`.
        device: Where steps are computed.
        progress: Who is warned of steps that are not compiled for want of a compiler.

    Raises:
        ConfigError: The recipe wants compiled steps, and something is missing.
    """
    on_gpu = device.startswith("cuda")
    wanted = on_gpu if recipe.compile is None else recipe.compile
    missing = missing_for(on_gpu) if wanted else None
    if missing is None:
        return wanted
    if recipe.compile:
        raise ConfigError(f"--set compile=true needs {missing}. Install it, or leave the setting away.")
    progress.warn(f"Steps are not compiled, and slower: that needs {missing}. The results do not depend on it.")
    return False


def missing_for(on_gpu: bool) -> str | None:
    """What torch's compiler would miss, with the words to install it; none: nothing."""
    variable, language, known = (
        ("CC", "C", ("gcc", "clang", "cc")) if on_gpu else ("CXX", "C++", ("g++", "clang++", "c++"))
    )
    named = os.environ.get(variable)
    if not any(shutil.which(name) for name in ((named,) if named else known)):
        return f"a {language} compiler ({f'{variable}={named} is none' if named else 'apt install build-essential'})"
    if not Path(sysconfig.get_paths()["include"], "Python.h").is_file():
        return f"Python's headers ({sysconfig.get_paths()['include']}/Python.h; apt install python3-dev)"
    return None
