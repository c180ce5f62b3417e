"""The paper's prompts, each rendered and compared byte for byte with what is written out here by hand."""

import pytest

from rlvr_limit.tasks.prompts import TEMPLATES, render, template
from rlvr_limit.tokenizer import load_tokenizer
from rlvr_limit.types import UserError
from tests.support.tokenizer_files import write_qwen2

QUESTION = "Let $f(x) = \\frac{x}{2}$ for {x}.\nFind {question} $f$, {starter_code} %s?"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(write_qwen2(tmp_path_factory.mktemp("qwen2")))


EXPECTED = {
    "visual": r"""<|im_start|>system
You are Qwen, created by Alibaba Cloud. You are a helpful assistant. You FIRST think about the reasoning process as an \
internal monologue and then provide the final answer. The reasoning process MUST BE enclosed within <think> </think> \
tags. The final answer MUST BE put in \boxed{{}}.<|im_end|>
<|im_start|>user
{}<|im_end|>
<|im_start|>assistant
""".replace("\\\n", ""),
    "judge": """<|im_start|>system
You help.<|im_end|>
<|im_start|>user
Below are a problem and a solution whose final answer is right. Judge its reasoning: is every step right, and does the \
answer follow from the steps, without a guess, a gap, or errors that cancel out?

{}

Say in short what you find. End with one word: yes if the reasoning is right, no if it is not.<|im_end|>
<|im_start|>assistant
""",
    "qwen_boxed": r"""<|im_start|>system
You are a helpful assistant.<|im_end|>
<|im_start|>user
{}
Please reason step by step, and put your final answer within \boxed{{}}.<|im_end|>
<|im_start|>assistant
""",
    "oat": r"""<|im_start|>system
Please reason step by step, and put your final answer within \boxed{{}}.<|im_end|>
<|im_start|>user
{}<|im_end|>
<|im_start|>assistant
""",
    "dapo": """A conversation between user and assistant. The user asks a question, and the assistant solves it. \
The time limit is set to 20,480 tokens. If the assistant's response exceeds this limit, a progressively increasing \
penalty with the number of tokens exceeded will be applied.
user
Solve the following math problem step by step. The last line of your response should be of the form Answer: $Answer \
(without quotes) where $Answer is the answer to the problem.
{}
Remember to put your answer on its own line after "Answer:".
assistant""",
    "verl_r1": """A conversation between User and Assistant. The user asks a question, and the Assistant solves it. \
The assistant first thinks about the reasoning process in the mind and then provides the user with the answer. \
The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, \
i.e., <think> reasoning process here </think> <answer> answer here </answer>. User: {}
Assistant:""",
    "simplerl_llama": """Question:
{}
Answer:
Let's think step by step.
""",
    "chat": r"""<|im_start|>system
You help.<|im_end|>
<|im_start|>user
{}
Please reason step by step, and put your final answer within \boxed{{}}.<|im_end|>
<|im_start|>assistant
""",
    "code_r1": """<|im_start|>system
You are a helpful programming assistant. The user will ask you a question and you as the assistant solve it. \
The assistant first thinks how to solve the task through reasoning and then provides the user with the final answer. \
The reasoning process and answer are enclosed within <think>...</think> and <answer>...</answer> tags, \
respectively.<|im_end|>
<|im_start|>user
{}<|im_end|>
<|im_start|>assistant
""",
    "humaneval_plus": """<|im_start|>system
You are a helpful assistant.<|im_end|>
<|im_start|>user
Please provide a self-contained Python script that solves the following problem in a markdown code block:
```
{}
```
<|im_end|>
<|im_start|>assistant
Below is a Python script with a self-contained function that solves the problem and passes corresponding tests:
```python
""",
    "qwen_coder": """<|im_start|>system
You are an intelligent programming assistant to produce Python algorithmic solutions<|im_end|>
<|im_start|>user
Can you complete the following Python function?
```python
{}
```
<|im_end|>
<|im_start|>assistant
```python
""",
    "livecodebench": """<|im_start|>system
You are a helpful assistant.<|im_end|>
<|im_start|>user

You will be given a question (problem specification) and will generate a correct Python program that matches the \
specification and passes all tests. You will NOT return anything except for the program.

Question: {}

Read the inputs from stdin solve the problem and write the answer to stdout (do not directly test on the sample \
inputs). Enclose your code within delimiters as follows. Ensure that when the python program runs, it reads the \
inputs, runs the algorithm and writes output to STDOUT.
```python
# YOUR CODE HERE
```

<|im_end|>
<|im_start|>assistant
```python""",
    "livecodebench_chat": """<|im_start|>system
You help.<|im_end|>
<|im_start|>user
You will be given a question (problem specification) and will generate a correct Python program that matches the \
specification and passes all tests.

Question: {}

Read the inputs from stdin solve the problem and write the answer to stdout (do not directly test on the sample \
inputs). Enclose your code within delimiters as follows. Ensure that when the python program runs, it reads the \
inputs, runs the algorithm and writes output to STDOUT.
```python
# YOUR CODE HERE
```<|im_end|>
<|im_start|>assistant
""",
    "countdown_words": """Use every number once, with +, - and *, to make the target.
Numbers: 3, 5, 8. Target: 64. Answer: (3+5)*8=64
Numbers: 4, 7, 9. Target: 20. Answer: 4+7+9=20
Numbers: 2, 6, 10. Target: 58. Answer: 6*10-2=58
{} Answer:""",
    "bare": "{}",
    "answer_only": (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n{}\n"
        "Do not reason. Reply with nothing but the final answer within \\boxed{{}}.<|im_end|>\n<|im_start|>assistant\n"
    ),
}

STARTER = """<|im_start|>system
You are a helpful assistant.<|im_end|>
<|im_start|>user

You will be given a question (problem specification) and will generate a correct Python program that matches the \
specification and passes all tests. You will NOT return anything except for the program.

Question: {}

You will use the following starter code to write the solution to the problem and enclose your code within delimiters.
```python
class Solution:
    def f(self, {{question}}): ...
```

<|im_end|>
<|im_start|>assistant
```python"""


def test_every_prompt_is_written_out_here():
    assert EXPECTED.keys() == {known.name for known in TEMPLATES}
    assert len(EXPECTED) == len(TEMPLATES)


@pytest.mark.parametrize("name", EXPECTED)
def test_prompt_is_byte_exact(tokenizer, name):
    assert render(name, QUESTION, tokenizer) == EXPECTED[name].format(QUESTION)


def test_prompt_with_starter_code_is_byte_exact(tokenizer):
    code = "class Solution:\n    def f(self, {question}): ..."
    assert render("livecodebench", QUESTION, tokenizer, code) == STARTER.format(QUESTION)


@pytest.mark.parametrize("name", EXPECTED)
def test_white_space_around_a_question_stays_but_where_the_benchmark_strips_it(tokenizer, name):
    spaced = f" \n{QUESTION}\n "
    asked = QUESTION if name in ("humaneval_plus", "qwen_coder") else spaced
    rendered = render(name, spaced, tokenizer)
    if name == "chat":  # the template of this vocabulary trims the turn
        asked = asked.lstrip()
    assert rendered == EXPECTED[name].format(asked)


@pytest.mark.parametrize("name", EXPECTED)
def test_markers_of_chatml_become_one_token_each(tokenizer, name):
    prompt = render(name, QUESTION, tokenizer)
    ids = tokenizer.encode(prompt)
    for marker in ("<|im_start|>", "<|im_end|>"):
        assert ids.count(tokenizer.token_id(marker)) == prompt.count(marker)
    assert tokenizer.decode(ids) == prompt


def test_hand_written_prompts_start_with_what_the_model_s_tokenizer_puts_first_and_chat_does_not(tmp_path):
    llama = load_tokenizer(
        write_qwen2(tmp_path, add_bos_token=True, bos_token="<|endoftext|>", chat_template="{{ bos_token }}chat")
    )
    for name in EXPECTED.keys() - {"chat", "livecodebench_chat", "judge"}:
        assert render(name, QUESTION, llama) == "<|endoftext|>" + EXPECTED[name].format(QUESTION)
    assert render("chat", QUESTION, llama) == "<|endoftext|>chat"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("qwen-boxed", "there is no prompt 'qwen-boxed'; did you mean 'qwen_boxed'?"),
        ("R1", "there is no prompt 'R1' "),
        ("simplerl", "did you mean 'simplerl_llama'"),
        ("", "there are: qwen_boxed, oat, dapo"),
    ],
)
def test_an_unknown_name_gets_the_nearest_right_one(tokenizer, name, message):
    with pytest.raises(UserError) as raised:
        render(name, QUESTION, tokenizer)
    assert message in str(raised.value)


def test_a_chat_prompt_without_a_chat_template_says_which_prompts_need_none(tmp_path):
    bare = load_tokenizer(write_qwen2(tmp_path, chat_template=None))
    with pytest.raises(UserError, match="'chat' needs a chat template, .* has none; choose one of: qwen_boxed, oat"):
        render("chat", QUESTION, bare)


def test_starter_code_is_refused_where_there_is_no_place_for_it(tokenizer):
    with pytest.raises(UserError, match="'qwen_boxed' has no place for starter code"):
        render("qwen_boxed", QUESTION, tokenizer, "class Solution:")


def test_each_template_has_one_question():
    for known in TEMPLATES:
        assert template(known.name) is known
        assert known.text.count("{question}") == 1
        assert known.with_starter.count("{question}") == known.with_starter.count("{starter_code}") <= 1
