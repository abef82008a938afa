"""What ``${...:}`` means in our configurations, besides OmegaConf's own resolvers."""

from omegaconf import OmegaConf

from statprune.config.naming import run_name
from statprune.config.secrets import guard_environment
from statprune.system.gpu_slots import visible_gpus


def register_resolvers() -> None:
    """Make our resolvers known to this process."""
    guard_environment()
    OmegaConf.register_new_resolver("run_name", run_name, replace=True)
    OmegaConf.register_new_resolver("visible_gpus", lambda: max(1, visible_gpus()), replace=True)
    OmegaConf.register_new_resolver("gpus_per_job", lambda: min(1, visible_gpus()), replace=True)
