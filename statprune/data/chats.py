"""Conversations as text, by the template of the model's own tokenizer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from statprune.errors import DataError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Chat = list[dict[str, str]]


def chat_of(value: object) -> Chat | None:
    """A conversation; None where it is empty or one of its messages has no text.

    Args:
        value: a list of dictionaries with role and content.

    Raises:
        ValueError: it is something else, as half a sentence.
    """
    if not isinstance(value, list):
        raise ValueError(f"it is no list of messages, but of the type {type(value).__name__}")
    chat = []
    for message in value:
        if not isinstance(message, dict):
            raise ValueError(f"it is a list with an item of the type {type(message).__name__}, not one of messages")
        if not {"role", "content"} <= set(message):
            raise ValueError("a message is no dictionary with role and content")
        role, content = message["role"], message["content"]
        if content is None or content == "":
            return None
        if not isinstance(role, str) or not isinstance(content, str):
            raise ValueError("a message's role and content are not both text")
        chat.append({"role": role, "content": content})
    return chat or None


def rendered(tokenizer: "PreTrainedTokenizerBase", chats: Sequence[Chat], what: str) -> list[str]:
    """The conversations as the tokenizer's template writes them, special tokens included.

    Args:
        tokenizer: the model's.
        chats: the conversations.
        what: holds them, for the sentences.

    Raises:
        DataError: the tokenizer has no template, or it refuses a conversation.
    """
    if problem := template_problem(tokenizer, what):
        raise DataError(problem)
    texts = []
    for number, chat in enumerate(chats, 1):
        try:
            texts.append(str(tokenizer.apply_chat_template(chat, tokenize=False)))
        except Exception as error:  # a template raises what it likes
            raise DataError(
                f"conversation {number} of {what} does not fit the tokenizer's chat template ({first_line(error)}); "
                "mend it, or name a column of text"
            ) from error
    return texts


def template_problem(tokenizer: "PreTrainedTokenizerBase", what: str) -> str | None:
    """Why conversations can't be written as text, in a sentence, or None."""
    if tokenizer.chat_template:
        return None
    return f"{what} holds conversations, and the model's tokenizer has no chat template; name a column of text"
