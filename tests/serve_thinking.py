"""What OpenAI's own client and LangChain make of a model that thinks: serve_thinking.py BASE_URL KEY."""

import sys

import openai
from langchain_core.messages import AIMessage, HumanMessage
from langchain_openai import ChatOpenAI

base_url, key = sys.argv[1:]
client = openai.OpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=120)
question = [{"role": "user", "content": "Why?"}]
budget = {"thinking_budget_tokens": 6}


def thought(part):
    """The thought in a message or a delta, by both of its names."""
    extra = part.model_extra or {}
    assert extra.get("reasoning_content") == extra.get("reasoning"), extra
    return extra.get("reasoning_content")


def ask(messages=question, **more):
    return client.chat.completions.create(model="tiny", messages=messages, max_tokens=24, temperature=0, **more)


# A whole answer.
whole = ask(extra_body=budget)
message = whole.choices[0].message
assert thought(message) and message.content, message
details = whole.usage.completion_tokens_details
assert 6 <= details.reasoning_tokens < whole.usage.completion_tokens == 24, whole.usage

# The same in pieces: first the thought, then the answer.
thoughts, text, usage = "", "", None
for event in ask(extra_body=budget, stream=True, stream_options={"include_usage": True}):
    usage = event.usage or usage
    for choice in event.choices:
        piece = thought(choice.delta)
        assert not (piece and text), "a thought after the answer began"
        thoughts += piece or ""
        text += choice.delta.content or ""
assert (thoughts, text) == (thought(message), message.content), (thoughts, text, message)
assert usage.completion_tokens_details.reasoning_tokens == details.reasoning_tokens, usage

# The client's own field: without a thought, the fields are those of OpenAI's API.
for fields in [{"reasoning_effort": "none"}, {"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}}]:
    plain = ask(**fields)
    assert thought(plain.choices[0].message) is None and plain.choices[0].message.content, plain
    assert plain.usage.completion_tokens_details.reasoning_tokens == 0, plain.usage

# A thought that never ends leaves nothing for the answer, and the client sees why.
cut = ask(reasoning_effort="high")
assert cut.choices[0].finish_reason == "length" and cut.choices[0].message.content == "", cut
assert thought(cut.choices[0].message) and cut.usage.completion_tokens_details.reasoning_tokens == 24, cut

# A message that goes back as it came.
history = [*question, message.model_dump(exclude_none=True), {"role": "user", "content": "And?"}]
assert ask(history, extra_body=budget).usage.prompt_tokens > whole.usage.prompt_tokens

try:
    ask(extra_body={"chat_template_kwargs": [1]})
except openai.BadRequestError as error:
    assert error.body["param"] == "chat_template_kwargs", error.body
else:
    raise AssertionError("kwargs that are no object")

# LangChain: the content is the answer alone, and the usage has the thought.
chat = ChatOpenAI(
    base_url=base_url, api_key=key, model="tiny", max_tokens=24, temperature=0, max_retries=0, stream_usage=True,
    extra_body=budget,
)
said = chat.invoke("Why?")
assert said.content == message.content, said
assert said.usage_metadata["output_token_details"]["reasoning"] == details.reasoning_tokens, said.usage_metadata
chunks = None
for chunk in chat.stream("Why?"):
    chunks = chunk if chunks is None else chunks + chunk
assert chunks.content == message.content, chunks
assert chunks.usage_metadata["output_token_details"]["reasoning"] == details.reasoning_tokens, chunks.usage_metadata
next_turn = chat.invoke([HumanMessage("Why?"), AIMessage(said.content), HumanMessage("And?")])
assert next_turn.content and next_turn.usage_metadata["input_tokens"] > said.usage_metadata["input_tokens"]
quiet = ChatOpenAI(
    base_url=base_url, api_key=key, model="tiny", max_tokens=24, temperature=0, max_retries=0, reasoning_effort="none"
).invoke("Why?")
assert quiet.content == plain.choices[0].message.content, quiet
assert not quiet.usage_metadata.get("output_token_details", {}).get("reasoning"), quiet.usage_metadata
print("all well")
