"""What the cards of runs and of models saved from Python share: metadata, tables, how to use and check a model."""

from collections.abc import Mapping, Sequence

import yaml

from statprune.model.base_card import BaseCard
from statprune.model.location import is_hub_id, model_name

SIGNATURE = "by statprune"  # in every card: jobs tell by it which models they may replace
PLACE = "this/folder"  # in a card, until the model is sent to a repository
# of the relations that the hub knows (adapter, merge, quantized, finetune) the one for weights that were changed
RELATION = "finetune"


def header(
    path: str, what: str, is_pruned: bool, base: BaseCard | None = None, is_compressed: bool = False
) -> list[str]:
    """The hub's metadata, and the title.

    Args:
        path: of the base model.
        what: was done to it: ``pruned``.
        is_pruned: whether the model is sparse.
        base: what the base model's own card says; None: it has none.
        is_compressed: whether only statprune reads the files.
    """
    base = base or BaseCard()
    origin = path if is_hub_id(path) else base.base_model
    metadata: dict[str, object] = dict(base.licence)
    if origin is not None:
        metadata |= {"base_model": origin, "base_model_relation": RELATION}
    metadata |= {"library_name": "statprune" if is_compressed else "transformers", "pipeline_tag": "text-generation"}
    lines = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True).splitlines()
    tags = ["statprune", *(["pruned", "sparse"] if is_pruned else [])]
    return ["---", *lines, f"tags: [{', '.join(tags)}]", "---", "", f"# {model_name(path)}, {what} {SIGNATURE}", ""]


def table_of(facts: Mapping[str, str]) -> list[str]:
    """A table with a row for each fact."""
    return ["| | |", "| --- | --- |", *map(row, facts.items()), ""]


def head(columns: Sequence[str]) -> list[str]:
    """The first two lines of a table."""
    return [row(columns), row(["---"] * len(columns))]


def row(cells: Sequence[object]) -> str:
    """One line of a table."""
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def usage(place: str, is_compressed: bool, trusts_code: bool = False) -> list[str]:
    """How the model is opened.

    Args:
        place: the repository, or what stands for the folder.
        is_compressed: whether only statprune reads the files.
        trusts_code: whether the model comes with code of its own.
    """
    trust = ", trust_remote_code=True" if trusts_code else ""
    lines = ["", "## Use", "", "```python"]
    if is_compressed:
        lines += [
            "from statprune import load_compressed",
            "",
            f'loaded = load_compressed("{place}"{trust})  # by way of a dense copy, which goes with it',
            "model, tokenizer = loaded.model, loaded.tokenizer",
        ]
    else:
        lines += [
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            f'model = AutoModelForCausalLM.from_pretrained("{place}", dtype="auto"{trust})',
            f'tokenizer = AutoTokenizer.from_pretrained("{place}"{trust})',
        ]
    lines += [
        'tokens = tokenizer("The weight of a matrix", return_tensors="pt")',
        "print(tokenizer.decode(model.generate(tokens.input_ids, max_new_tokens=20)[0]))",
        "```",
    ]
    if is_compressed:
        lines += [
            "",
            "The matrices are stored as a bit for each weight and the weights left, which no other program reads. "
            f'`statprune decompress "{place}" FOLDER` gives, bit for bit, the folder that `from_pretrained` opens.',
        ]
    return lines


def checks(place: str, of_run: bool) -> list[str]:
    """How to see that the card is true, and what zeros are not.

    Args:
        place: the repository, or what stands for the folder.
        of_run: whether a run with a record saved the model.
    """
    verify = (
        " `statprune verify RUN`, with the folder of the run that saved it, compares the files with the run's record."
        if of_run
        else ""
    )
    return [
        "",
        "## Check",
        "",
        f'`statprune inspect "{place}"` counts the zeros of every matrix, and says whether the sparsity in this card '
        f"is true.{verify}",
        "",
        "## Speed",
        "",
        "Zeros alone make no runtime faster: dense kernels multiply them like other weights, and the model takes the "
        "memory of a dense one once it is opened. `statprune bench` measures what a machine makes of it.",
    ]


def licence(base: BaseCard) -> list[str]:
    """What is known of the licence."""
    named = base.licence.get("license_name") or base.licence.get("license")
    told = f": {named}, as its card says." if named else ", whose card was not at hand or does not name one."
    return ["", "## Licence", "", f"That of the base model{told}"]
