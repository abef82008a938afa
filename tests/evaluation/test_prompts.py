"""Prompts' tokens are those of lm-eval's command line, and options that can't act on them are refused."""

import pytest
from lm_eval.models.huggingface import HFLM
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import ByteLevel as Offsets
from tokenizers.processors import TemplateProcessing

from statprune.errors import DataError, ModelError
from statprune.evaluation.harness import Harness, Rehearsal
from statprune.evaluation.prompts import check_tokenizer, for_prompts, prompt_tokens
from statprune.evaluation.tasks import TaskOptions, load_tasks
from statprune.evaluation.zero_shot import ZeroShot
from tests.helpers.models import tiny_llama, tiny_tokenizer
from tests.helpers.tasks import choices

TEXTS = ["some words", "<s>begun", "a", " spaced "]
BEGINS = TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
PROCESSORS = {"none": None, "bos": BEGINS, "offsets": Offsets(trim_offsets=False)}


def tokenizer_with(processor: str):
    tokenizer = tiny_tokenizer()
    if processor == "offsets":
        tokenizer.backend_tokenizer.pre_tokenizer = ByteLevel()
    if PROCESSORS[processor] is not None:
        tokenizer.backend_tokenizer.post_processor = PROCESSORS[processor]
    return tokenizer


@pytest.mark.parametrize("add_bos_token", [None, True, False])
@pytest.mark.parametrize("processor", PROCESSORS)
def test_prompts_have_the_tokens_of_lm_evals_command_line(processor, add_bos_token, tmp_path):
    model, tokenizer = tiny_llama(), tokenizer_with(processor)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    theirs = HFLM(pretrained=str(tmp_path), add_bos_token=add_bos_token, device="cpu")
    own = Harness(model, tokenizer, 4, add_bos_token)
    assert [own.tok_encode(text) for text in TEXTS] == [theirs.tok_encode(text) for text in TEXTS]
    assert own.tok_batch_encode(["a", "b"])[0].tolist() == theirs.tok_batch_encode(["a", "b"])[0].tolist()
    begins = own.tok_encode("a")[0] == 1
    assert begins is (processor == "bos" if add_bos_token is None else add_bos_token)


def test_the_models_own_tokenizer_stays_as_it_is():
    tokenizer = tiny_tokenizer()
    for_prompts(tokenizer, True)
    assert tokenizer("a")["input_ids"][0] != 1


def test_bos_is_refused_where_there_is_none():
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = None
    with pytest.raises(ModelError, match=r"add_bos_token=true has no effect, since .* has no BOS token; leave it out"):
        for_prompts(tokenizer, True)


def test_requests_are_counted_and_their_tokens_known():
    prompts = [
        ("some words", " answer"),
        ("", "answer"),
        ("<s>begun", " x"),
        ("a whole text",),
        ("write", {"until": []}),
    ]
    for add_bos_token, with_bos in ((None, 3), (True, 5)):
        rehearsal = Rehearsal(tiny_llama(), tiny_tokenizer(), 4, add_bos_token)
        tokens = prompt_tokens(rehearsal, prompts)
        texts = ["".join(text for text in prompt if isinstance(text, str)) for prompt in prompts]
        assert tokens.with_bos == with_bos and tokens.smallest == 0
        assert tokens.largest == max(max(rehearsal.tok_encode(text)) for text in texts)


def test_prompts_with_tokens_that_the_model_lacks_are_refused_before_it_is_measured(tasks):
    model = tiny_llama()
    model.resize_token_embeddings(20)
    with pytest.raises(ModelError, match=r"a prompt of evaluation\.tasks has the token \d+, but LlamaForCausalLM has"):
        ZeroShot(load_tasks([str(tasks / "alone.yaml")]), model, tiny_tokenizer(), TaskOptions())


def test_a_tokenizer_without_bos_and_eos_is_a_sentence(tasks):
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = None
    with pytest.raises(ModelError, match="has neither a BOS nor an EOS token"):
        check_tokenizer(load_tasks([str(tasks / "alone.yaml")]), tokenizer, TaskOptions())


def test_shots_that_a_task_fixes_are_refused(tmp_path):
    choices("fixed", tmp_path, 4, num_fewshot=0, fewshot_split="test")
    with pytest.raises(DataError, match=r"num_fewshot=2 has no effect on fixed, whose YAML fixes the number"):
        ZeroShot(load_tasks([str(tmp_path)]), tiny_llama(), tiny_tokenizer(), TaskOptions(num_fewshot=2))


def test_a_metric_of_no_task_is_refused(tasks):
    with pytest.raises(DataError, match=r"metric=f1 is a metric of no task .* choose from acc, acc_norm"):
        ZeroShot(load_tasks([str(tasks / "alone.yaml")]), tiny_llama(), tiny_tokenizer(), TaskOptions(metric="f1"))
