"""The machine that made the page."""

from collections.abc import Sequence

from caev2.report.sections.section import Section, facts


def environment_section(machine: Sequence[tuple[str, str]]) -> Section:
    """Versions and hardware.

    Args:
        machine: Names and values, as `describe_machine` gives them.
    """
    return Section(
        id="environment",
        title="Environment",
        about="Of the machine that made this page, which need not be the one that trained. Runs record no machine.",
        body=(facts(machine),),
    )
