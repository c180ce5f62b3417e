"""Chat templates: Jinja programs that come with a model and lay a conversation out as its prompt.

They are other people's programs, so they run in Jinja's immutable sandbox. Set-up and variables are those of
transformers, with one exception: there is no strftime_now. A prompt that names today's date would be another prompt
tomorrow; templates that ask whether strftime_now is defined fall back on a date of their own.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rlvr_limit.types import UserError

Message = Mapping[str, str]
"""One turn: {"role": "system" | "user" | "assistant", "content": text}."""


def render_chat(
    template: str,
    messages: Sequence[Message],
    special_tokens: Mapping[str, str],
    add_generation_prompt: bool,
    source: str,
) -> str:
    """The text of a conversation. special_tokens are variables of the template, as {"bos_token": "<s>"}.

    Raises UserError, naming source, where the template is broken or refuses the conversation.
    """
    variables = {"messages": messages, "tools": None, "documents": None, **special_tokens}
    try:
        return _compiled(template).render(**variables, add_generation_prompt=add_generation_prompt)
    except jinja2.TemplateSyntaxError as error:
        raise UserError(f"{source}: the chat template is broken in line {error.lineno}: {error.message}") from error
    except (jinja2.TemplateError, TypeError) as error:
        raise UserError(f"{source}: the chat template fails on this conversation: {error}") from error


class _Generation(Extension):
    """{% generation %} ... {% endgeneration %}: marks for training what the assistant says, and changes no text."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        """The block's content; what is set in it stays in it, as in transformers."""
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


@functools.lru_cache(maxsize=8)
def _compiled(template: str) -> jinja2.Template:
    sandbox = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
    )
    # Jinja's own filter escapes <, > and &, which a prompt must keep.
    sandbox.filters["tojson"] = functools.partial(json.dumps, ensure_ascii=False)
    sandbox.globals["raise_exception"] = _raise_exception
    return sandbox.from_string(template)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
