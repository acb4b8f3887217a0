"""What `caev2 ablate` ends with: tables, plots and pages, and a few lines about them."""

from pathlib import Path

from caev2.ablate.built_in import built_in_grids
from caev2.ablate.outcome import outcomes_below
from caev2.ablate.pages import TABLE, write_pages
from caev2.ablate.running import AblationResult
from caev2.progress import Progress
from caev2.terminal import print_json


def print_result(result: AblationResult, out: Path, progress: Progress, as_json: bool) -> None:
    """Write the pages of what was found now, and by earlier commands in the same folder, and print where they are.

    Args:
        result: What the command came to.
        out: Folder of the results.
        progress: Told of outcomes and logs that are damaged.
        as_json: Whether for machines.

    Raises:
        OutputError: A page cannot be written.
    """
    written = _write_pages(result, out, progress)
    if as_json:
        print_json(
            {
                "out": out,
                "runs": result.runs,
                "computed": result.computed,
                "failures": result.failures,
                "grids": {one.grid: out / one.grid for one in result.outcomes},
                "files": written,
            }
        )
        return
    for name, why in result.failures.items():
        print(f"Failed: {name}: {why}")
    print(f"{result.runs} runs, of which {result.computed} were done now and {len(result.failures)} failed")
    for outcome in result.outcomes:
        print(f"{outcome.grid}: {out / outcome.grid / TABLE}")


def _write_pages(result: AblationResult, out: Path, progress: Progress) -> list[Path]:
    found = {one.grid: one for one in (*outcomes_below(out, progress.warn), *result.outcomes)}
    known = [name for name in built_in_grids(quick=False) if name in found]
    return write_pages([found[name] for name in dict.fromkeys([*known, *sorted(found)])], out, progress.warn)
