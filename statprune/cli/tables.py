"""``statprune tables``: plan tables, run what is missing, and build them."""

import argparse
import signal
from collections.abc import Sequence
from pathlib import Path

from statprune.cli.interrupts import interrupts
from statprune.cli.outputs import check_folder
from statprune.config.place import place_of, use_place
from statprune.config.table_files import METRICS, table_names
from statprune.config.table_spec import Table, load_table
from statprune.errors import ConfigError
from statprune.experiments.reproduce import jobs_of, missing_jobs, print_plan, run_jobs

EXAMPLE = "statprune tables ppl ladder --scale bundled --dry-run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's arguments."""
    names = ", ".join(table_names())
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{names}, all, or the path of a table's YAML")
    parser.add_argument(
        "--scale",
        default="bundled",
        help="bundled (the bundled model and data, no network; the default) or paper",
    )
    parser.add_argument("--models", nargs="+", metavar="LABEL", help="of the scale's models; all of the table's")
    parser.add_argument("--rows", nargs="+", metavar="LABEL", help="only these rows")
    parser.add_argument("--columns", nargs="+", metavar="LABEL", help="only these columns or sections (2:4)")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="only these seeds")
    parser.add_argument("--metric", metavar="METRIC", help=f"in place of the tables' own: {', '.join(METRICS)}")
    parser.add_argument("--dry-run", action="store_true", help="list the cells and what they would cost, and stop")
    parser.add_argument(
        "--published",
        action="store_true",
        help="print the paper's values (--scale paper), and where each stands elsewhere, and stop",
    )
    parser.add_argument("--launcher", default="basic", help="as hydra/launcher: basic, joblib, submitit_slurm, ray")
    parser.add_argument(
        "--sweep",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="for the sweep: hydra.launcher.partition=gpu",
    )
    parser.add_argument("--config-dir", metavar="FOLDER", help="with configurations of your own, beside ours")
    parser.add_argument("--overrides", nargs="+", default=[], metavar="KEY=VALUE", help="for all cells: device=cuda")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="of the tables' files; outputs/tables/SCALE")


def run(options: argparse.Namespace) -> int:
    """Carry the verb out; returns 1 where a run failed.

    Raises:
        StatpruneError: the tables can't be read, run or built.
    """
    if not options.names:
        raise ConfigError([f"name a table: {', '.join(table_names())}, all, or the path of a YAML"])
    use_place(place_of(None, None, options.config_dir))
    names = table_names() if options.names == ["all"] else options.names
    tables = [
        load_table(name, options.scale, options.models, options.overrides).only(
            options.rows, options.columns, options.seeds
        )
        for name in names
    ]
    if options.metric:
        tables = [table.measured_by(options.metric) for table in tables]
    if options.published:
        return _print_published(tables)
    jobs = jobs_of(tables, options.sweep)
    print_plan(tables, jobs)
    if options.dry_run:
        return 0
    folder = options.output or Path("outputs", "tables", options.scale)
    check_folder(folder)
    missing = missing_jobs(jobs)
    interrupts.raise_error()
    flags = ["--config-dir", options.config_dir] if options.config_dir else []
    status = run_jobs(missing, options.launcher, [*flags, *options.sweep]) if missing else 0
    if status in (128 + number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)):
        return status

    # slow to import, and not needed for a plan
    from statprune.analysis.collect import collect_folders
    from statprune.analysis.table_figures import draw_table
    from statprune.analysis.table_text import to_markdown, write_tables
    from statprune.analysis.tables import build

    frame = collect_folders(sorted({job.folder.parent for job in jobs.values()}))
    for table in tables:
        built = build(table, {cell: jobs[cell].config_hash for cell in table.cells}, frame)
        print(to_markdown(built))
        print("files:", ", ".join(map(str, write_tables(built, folder) + draw_table(built, folder))))
    return status


def _print_published(tables: Sequence[Table]) -> int:
    """Print what the paper has of tables.

    Raises:
        ConfigError: it has nothing of them.
    """
    from statprune.analysis.published_text import published_markdown  # slow to import

    text = published_markdown(tables)
    if not text:
        names = ", ".join(table.name for table in tables)
        raise ConfigError([f"nothing of {names} is published at this scale; give --scale paper, or name other tables"])
    print(text)
    return 0
