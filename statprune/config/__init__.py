"""The configuration of a run.

schema: every key. checks: what is wrong with the values. compose: overrides become a configuration. overrides: what is
wrong with a command line. naming: what a run's folder is called. grids: which jobs a command stands for. table_spec,
table_files: which runs a table consists of, and the file that says so. hydra_plugin: a sweeper over listed cells.
"""

__all__ = ["checks", "compose", "grids", "naming", "overrides", "schema", "table_files", "table_spec"]
