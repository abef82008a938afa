"""``statprune push``: send a run's saved model to the Hugging Face hub."""

import argparse
from pathlib import Path

EXAMPLE = "statprune push outputs/default/RUN owner/name"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's arguments."""
    parser.add_argument("folder", type=Path, metavar="RUN", help="folder of a run with save_model=true or compressed")
    parser.add_argument("repository", metavar="OWNER/NAME", help="repository of the hub; made where it is not there")
    parser.add_argument("--private", action="store_true", help="a repository that is made is a private one")


def run(options: argparse.Namespace) -> int:
    """Carry the verb out.

    Raises:
        StatpruneError: there is no such model, it is damaged, or the hub does not take it.
    """
    # slow to import: not for --help
    from statprune.runs.pushing import push_finished

    sent = push_finished(options.folder, options.repository, options.private)
    print(f"{options.folder}: sent to {options.repository}, {sent.commit}")
    return 0
