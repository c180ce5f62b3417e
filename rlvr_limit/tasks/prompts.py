"""The prompts of Yue et al. 2025 (arXiv 2504.13837), Appendix E, and of the code that the authors ran, byte for byte.

Every arm of a comparison is asked in the same words, so a base model gets the prompt of its RL-trained counterpart.
Figures are numbered as in v2, whose appendix was at hand. The comment of a template says whom it is for, by what
source, and what was taken where figure and code differ.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from rlvr_limit.tasks.pictures import with_images
from rlvr_limit.tokenizer import TextTokenizer
from rlvr_limit.types import UserError

QUESTION, STARTER = "{question}", "{starter_code}"


@dataclass(frozen=True)
class PromptTemplate:
    """A prompt with the place of its question in it; every other brace is text."""

    name: str
    text: str
    with_starter: str = ""  # instead of text, for a question that comes with starter code
    chat: bool = False  # the text is the user's turn of the model's own chat template
    strips: bool = False  # white space around the question is dropped


def _chatml(system: str, user: str, after_user: str = "") -> str:
    return (
        f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n"
        f"<|im_start|>assistant\n{after_user}"
    )


def _livecodebench(what: str, code: str, only: str = "") -> str:
    # The benchmark's own layout, its empty lines included.
    return (
        "You will be given a question (problem specification) and will generate a correct Python program that matches "
        f"the specification and passes all tests.{only}\n\nQuestion: {QUESTION}\n\n{what}\n```python\n{code}\n```\n\n"
    )


def _livecodebench_qwen(what: str, code: str) -> str:
    user = _livecodebench(what, code, " You will NOT return anything except for the program.")
    return _chatml(ASSISTANT, "\n" + user, "```python")


ASSISTANT = "You are a helpful assistant."
BOXED = r"Please reason step by step, and put your final answer within \boxed{}."
SCRIPT = (
    "Read the inputs from stdin solve the problem and write the answer to stdout (do not directly test on the sample "
    "inputs). Enclose your code within delimiters as follows. Ensure that when the python program runs, it reads the "
    "inputs, runs the algorithm and writes output to STDOUT."
)
FUNCTION = (
    "You will use the following starter code to write the solution to the problem and enclose your code within "
    "delimiters."
)
# Not the paper's: examples of our own, for a model that is no player of Countdown.
COUNTDOWN_WORDS = PromptTemplate(
    "countdown_words",
    "Use every number once, with +, - and *, to make the target.\n"
    "Numbers: 3, 5, 8. Target: 64. Answer: (3+5)*8=64\n"
    "Numbers: 4, 7, 9. Target: 20. Answer: 4+7+9=20\n"
    "Numbers: 2, 6, 10. Target: 58. Answer: 6*10-2=58\n"
    f"{QUESTION} Answer:",
)
# Guess control: an arm of the base's weights asked so gives each problem's rate without a chain of thought (the filter
# of v5's Fig. 13; the paper does not print its wording, this one is ours).
ANSWER_ONLY = PromptTemplate(
    "answer_only",
    _chatml(ASSISTANT, f"{QUESTION}\nDo not reason. Reply with nothing but the final answer within \\boxed{{}}."),
)
EASYR1 = (
    "You FIRST think about the reasoning process as an internal monologue and then provide the final answer. The "
    "reasoning process MUST BE enclosed within <think> </think> tags. The final answer MUST BE put in \\boxed{}."
)
TEMPLATES = (
    # Qwen2.5-7B / 14B / 32B and their SimpleRL-Zoo models (App. E, Fig. 21; `qwen-boxed` of the published code, which
    # takes it for Oat-Zero and Qwen2.5-Math-7B too).
    PromptTemplate("qwen_boxed", _chatml(ASSISTANT, f"{QUESTION}\n{BOXED}")),
    # Qwen2.5-Math-7B-Oat-Zero and Qwen2.5-Math-7B as App. E has it (Fig. 22; `qwen_math` of Oat-Zero's own code).
    PromptTemplate("oat", _chatml(BOXED, QUESTION)),
    # DAPO-Qwen-32B and Qwen2.5-32B (App. E calls it the old prompt). Bytes of the published code (`abel`), which are
    # those of the example that DAPO-Qwen-32B is released with: plain words, no ChatML.
    PromptTemplate(
        "dapo",
        "A conversation between user and assistant. The user asks a question, and the assistant solves it. The time "
        "limit is set to 20,480 tokens. If the assistant's response exceeds this limit, a progressively increasing "
        "penalty with the number of tokens exceeded will be applied.\nuser\nSolve the following math problem step by "
        "step. The last line of your response should be of the form Answer: $Answer (without quotes) where $Answer is "
        "the answer to the problem.\n"
        f'{QUESTION}\nRemember to put your answer on its own line after "Answer:".\nassistant',
    ),
    # Qwen2.5-7B and its PPO, GRPO, Reinforce++, RLOO, ReMax and DAPO descendants on Omni-MATH-Rule and MATH500 (App. E,
    # Fig. 27, where `Assistant:` opens a line; `deepseek-r1` of the published code writes a full stop and a space there
    # instead).
    PromptTemplate(
        "verl_r1",
        "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The "
        "assistant first thinks about the reasoning process in the mind and then provides the user with the answer. "
        "The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> tags, "
        "respectively, i.e., <think> reasoning process here </think> <answer> answer here </answer>. "
        f"User: {QUESTION}\nAssistant:",
    ),
    # Llama-3.1-8B and its SimpleRL-Zoo model (`abel` of SimpleRL-Zoo's code, its simple prompt). App. E gives LLaMA no
    # prompt of its own; to ask it as Qwen2.5 is asked, take qwen_boxed.
    PromptTemplate("simplerl_llama", f"Question:\n{QUESTION}\nAnswer:\nLet's think step by step.\n"),
    # Models with a chat template of their own: Qwen2.5-7B-Instruct, Qwen2.5-Math-7B-Instruct and
    # DeepSeek-R1-Distill-Qwen, whose model card asks for this instruction in the user's turn (Fig. 7; App. E gives no
    # prompt for them).
    PromptTemplate("chat", f"{QUESTION}\n{BOXED}", chat=True),
    # Training of CodeR1-Zero from Qwen2.5-7B-Instruct-1M (App. E, Fig. 23; Code-R1's own code).
    PromptTemplate(
        "code_r1",
        _chatml(
            "You are a helpful programming assistant. The user will ask you a question and you as the assistant solve "
            "it. The assistant first thinks how to solve the task through reasoning and then provides the user with "
            "the final answer. The reasoning process and answer are enclosed within <think>...</think> and "
            "<answer>...</answer> tags, respectively.",
            QUESTION,
        ),
    ),
    # Qwen2.5-7B-Instruct-1M and CodeR1-Zero on HumanEval+ and MBPP+ (App. E, Fig. 25; line ends and the stripped
    # question as in EvalPlus).
    PromptTemplate(
        "humaneval_plus",
        _chatml(
            ASSISTANT,
            "Please provide a self-contained Python script that solves the following problem in a markdown code "
            f"block:\n```\n{QUESTION}\n```\n",
            "Below is a Python script with a self-contained function that solves the problem and passes corresponding "
            "tests:\n```python\n",
        ),
        strips=True,
    ),
    # Not the paper's: Qwen2.5-Coder-Instruct on HumanEval(+) and MBPP(+), as its own evaluation asks (EvalPlus 0.2.1's
    # ChatML; the question is stripped there).
    PromptTemplate(
        "qwen_coder",
        _chatml(
            "You are an intelligent programming assistant to produce Python algorithmic solutions",
            f"Can you complete the following Python function?\n```python\n{QUESTION}\n```\n",
            "```python\n",
        ),
        strips=True,
    ),
    # Qwen2.5-7B-Instruct-1M and CodeR1-Zero on LiveCodeBench (App. E, Fig. 24: the benchmark's own prompt for Qwen2.5,
    # with ```python appended). Bytes of the benchmark's code at 28fef95, where the figure differs.
    PromptTemplate(
        "livecodebench",
        _livecodebench_qwen(SCRIPT, "# YOUR CODE HERE"),
        with_starter=_livecodebench_qwen(FUNCTION, STARTER),
    ),
    # DeepSeek-R1-Distill-Qwen-14B and DeepCoder-14B-Preview on LiveCodeBench: the words of the benchmark's own prompt
    # for DeepSeek-R1 in the user's turn of the models' chat template (App. E gives no prompt for them).
    PromptTemplate(
        "livecodebench_chat",
        _livecodebench(SCRIPT, "# YOUR CODE HERE"),
        with_starter=_livecodebench(FUNCTION, STARTER),
        chat=True,
    ),
    # Not the paper's: nothing but the question, for audits of what a model goes on with (arXiv 2507.10532).
    PromptTemplate("bare", QUESTION),
    # Not the paper's: a problem and a solution, for a judge of its reasoning.
    PromptTemplate(
        "judge",
        "Below are a problem and a solution whose final answer is right. Judge its reasoning: is every step right, and "
        "does the answer follow from the steps, without a guess, a gap, or errors that cancel out?\n\n"
        f"{QUESTION}\n\nSay in short what you find. End with one word: yes if the reasoning is right, no if it is not.",
        chat=True,
    ),
    COUNTDOWN_WORDS,
    ANSWER_ONLY,
    # Qwen2.5-VL-7B-Instruct and its EasyR1 descendant on MathVista and MathVision (App. E, Fig. 26): two sentences of
    # Qwen2.5's text template, then EasyR1's instruction. Images stand in front of the question, on a line of their own.
    PromptTemplate("visual", _chatml(f"You are Qwen, created by Alibaba Cloud. {ASSISTANT} {EASYR1}", QUESTION)),
)


def template(name: str) -> PromptTemplate:
    """The template of that name. Raises UserError with the nearest name that there is."""
    known = {each.name: each for each in TEMPLATES}
    if name not in known:
        near = difflib.get_close_matches(name.lower().replace("-", "_"), known, n=1)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"there is no prompt {name!r}{meant} (there are: {', '.join(known)})")
    return known[name]


def filled(chosen: PromptTemplate, question: str, starter_code: str = "", images: int = 0) -> str:
    """The template's text with the question in it. UserError for starter code that it has no place for."""
    if starter_code and not chosen.with_starter:
        raise UserError(f"prompt {chosen.name!r} has no place for starter code")
    before, _, after = (chosen.with_starter if starter_code else chosen.text).partition(QUESTION)
    question = with_images(question.strip() if chosen.strips else question, images)
    return before + question + after.replace(STARTER, starter_code)


def render(name: str, question: str, tokenizer: TextTokenizer, starter_code: str = "", images: int = 0) -> str:
    """The whole prompt as text, from which tokenizer.encode makes the prompt's ids.

    It begins with tokenizer.lead (LLaMA-3's <|begin_of_text|>), or with what the model's chat template puts there.
    Raises UserError for an unknown name, for a chat prompt where the model has no chat template, and for starter code
    that the template has no place for.
    """
    chosen = template(name)
    text = filled(chosen, question, starter_code, images)
    if chosen.chat and tokenizer.chat_template is None:
        raise UserError(
            f"prompt {name!r} needs a chat template, but the tokenizer in {tokenizer.folder} has none; choose one of: "
            f"{', '.join(other.name for other in TEMPLATES if not other.chat)}"
        )
    return tokenizer.chat([{"role": "user", "content": text}]) if chosen.chat else tokenizer.lead + text
