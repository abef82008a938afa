"""``statprune options``: the groups of the configuration, their choices, and every key."""

import argparse
import json
import sys

from statprune.errors import ConfigError

EXAMPLE = "statprune options method=cvr"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's arguments."""
    parser.add_argument(
        "what",
        nargs="?",
        metavar="GROUP[=CHOICE]",
        help="a group (method), or one of its choices (method=cvr, allocation=owl, experiment=smoke); all groups",
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--json", action="store_true", help="as JSON")
    kind.add_argument(
        "--markdown", action="store_true", help="everything as a page of Markdown: docs/reference/options.md"
    )
    kind.add_argument("--record-markdown", action="store_true", help="what a run records: docs/reference/record.md")
    parser.add_argument("--config-dir", metavar="DIR", help="with the configurations of this folder, too")
    parser.add_argument(
        "--plugins",
        action="append",
        default=[],
        metavar="FILE",
        help="with what this Python file or module registers; once for each",
    )


def run(options: argparse.Namespace) -> int:
    """Carry the verb out; a plugin that can't be imported is left out, reported and makes the status 1.

    Raises:
        StatpruneError: there is no such group or choice.
    """
    # slow to import: not for --help
    from statprune.cli.layout import show
    from statprune.cli.options_text import asked, facts, lines
    from statprune.cli.record_page import record_page
    from statprune.cli.reference_page import reference_page
    from statprune.config.overrides import named_plugins
    from statprune.config.place import place_of, use_place
    from statprune.config.reference import Reference
    from statprune.system.plugin_files import use_what_can_be_imported

    if (options.markdown or options.record_markdown) and options.what:
        flag = "--markdown" if options.markdown else "--record-markdown"
        raise ConfigError([f"{flag} makes a page of everything; leave the group out"])
    if options.record_markdown:
        print(record_page(), end="")
        return 0
    use_place(place_of(None, None, options.config_dir))
    problems = use_what_can_be_imported([*named_plugins([]), *options.plugins])
    for problem in problems:
        print(f"statprune: {problem}", file=sys.stderr)
    reference = Reference()
    what = None if options.what is None else asked(reference, options.what)
    if options.markdown:
        print(reference_page(reference.keys, reference.groups), end="")
    elif options.json:
        print(json.dumps(facts(reference, what), indent=1, ensure_ascii=False))
    else:
        show(lines(reference, what))
    return 1 if problems else 0
