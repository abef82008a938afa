"""A score of your own in one file: |W_ij| times the standard deviation of its input, raised to a power.

From the command:  statprune plugins=[examples/plugin_score.py] method=spread method.power=0.5
From Python:       python examples/plugin_score.py
"""

from dataclasses import dataclass

from torch import Tensor

from statprune import InputStatistics, score


@dataclass(frozen=True)
class SpreadOptions:
    """Keys ``method.*`` of the command, and arguments of ``get_method``.

    Attributes:
        power: exponent of the standard deviation; 0 is magnitude.
    """

    power: float = 1.0

    def __post_init__(self) -> None:
        if self.power < 0:
            raise ValueError(f"method.power={self.power} is negative; give 0 or more")


@score()
def spread(weight: Tensor, statistics: InputStatistics, options: SpreadOptions) -> Tensor:
    """|W_ij| · σ_j^power, (out_features, in_features): channels that vary count, those that are constant do not."""
    deviation = statistics.variance.sqrt().pow(options.power)
    return weight.abs() * deviation.to(weight.dtype)


def main(*model: str, samples: int = 4, seq_len: int = 128) -> None:
    """Prune a model with the score and with Wanda's, and print what that did to the outputs of its matrices.

    Args:
        *model: its path; none: the bundled one.
        samples: calibration windows.
        seq_len: tokens of each.
    """
    from statprune import calibration_windows, get_method, load_model, prune

    for method in ("wanda", get_method("spread"), get_method("spread", power=0.5)):
        loaded = load_model(*model)
        windows = calibration_windows(loaded.tokenizer, "bundled", samples, seq_len)
        result = prune(loaded, method, "2:4", windows=windows)
        name = method if isinstance(method, str) else f"spread, {method.options}"
        print(f"{name}: mean relative output error {result.to_frame().relative_output_error.mean():.4f}")


if __name__ == "__main__":
    main()
