"""One run and many: their stages, files and records, what runs share, and how a sweep ended.

job: one job of a sweep. verdict: whether a job is run, completed, skipped or refused. pipeline: a run's stages, with
context, prepare, measure and resume. record: what a run leaves, with environment and finals. store: the files of a
run's folder. workbench and dense_cache: what one run leaves for the next. ledger: how the jobs of a sweep ended.
summary, model_card and wording: a record for people. tracking: Weights & Biases.
"""

__all__ = ["job", "ledger", "model_card", "pipeline", "record", "store", "summary", "tracking", "verdict", "workbench"]
