"""What OpenAI's own client makes of a server: serve_openai.py BASE_URL KEY CLIP."""

import base64
import concurrent.futures
import sys

import openai

base_url, key, clip = sys.argv[1:]
client = openai.OpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=120)

models = list(client.models.list())
assert [model.id for model in models] == ["tiny"], models
assert client.models.retrieve("tiny").owned_by == "sharpv"

with open(clip, "rb") as file:
    uri = "data:video/mp4;base64," + base64.b64encode(file.read()).decode()
messages = [
    {
        "role": "user",
        "content": [
            {"type": "video_url", "video_url": {"url": uri}},
            {"type": "text", "text": "What is in the video?"},
        ],
    }
]

# A whole answer, with fields of this server's own.
whole = client.chat.completions.create(
    model="tiny", messages=messages, max_tokens=8, temperature=0, extra_body={"sharpv": {"num_frames": 4, "keep": 0.5}}
)
assert whole.choices[0].message.role == "assistant"
assert whole.choices[0].finish_reason in ("stop", "length")
assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
assert whole.usage.prompt_tokens_details.cached_tokens == 0
assert whole.usage.visual_tokens["kept"] * 2 == whole.usage.visual_tokens["total"], whole.usage
frames = whole.model_extra["sharpv"]["frames"]
assert 1 < frames <= 4, frames
assert whole._request_id


def stream(**more):
    """The text of an answer in pieces, and its usage."""
    text, usage, reason = "", None, None
    with client.chat.completions.create(
        model="tiny", messages=messages, max_tokens=8, temperature=0, stream=True,
        stream_options={"include_usage": True}, **more
    ) as events:
        for event in events:
            for choice in event.choices:
                text += choice.delta.content or ""
                reason = choice.finish_reason or reason
            usage = event.usage or usage
    assert reason in ("stop", "length"), reason
    return text, usage


text, usage = stream(extra_body={"sharpv": {"num_frames": 4, "keep": 0.5}})
assert text == whole.choices[0].message.content, (text, whole)
assert usage.prompt_tokens == whole.usage.prompt_tokens
assert usage.prompt_tokens_details.cached_tokens > 0, "the same video is not read twice"

# Errors are raised as what they are.
for expected, call in [
    (openai.AuthenticationError, lambda: openai.OpenAI(base_url=base_url, api_key="no", max_retries=0).models.list()),
    (openai.NotFoundError, lambda: client.chat.completions.create(model="other", messages=messages)),
    (openai.BadRequestError, lambda: client.chat.completions.create(model="tiny", messages=messages, n=2)),
    (
        openai.BadRequestError,
        lambda: client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}]}],
            stream=True,
        ),
    ),
]:
    try:
        call()
    except expected as error:
        assert error.body["message"] and error.body["code"], error.body
    else:
        raise AssertionError(f"no {expected}")

# One that is left in the middle does no harm.
events = client.chat.completions.create(model="tiny", messages=messages, max_tokens=16, stream=True)
next(iter(events))
events.close()

# Several at once.
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    answers = [future.result()[0] for future in [pool.submit(stream) for _ in range(16)]]
assert len(set(answers)) == 1, answers

# The asynchronous client.
import asyncio  # noqa: E402


async def ask():
    async with openai.AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0) as other:
        pieces = []
        async for event in await other.chat.completions.create(model="tiny", messages=messages, max_tokens=8, stream=True):
            pieces += [choice.delta.content or "" for choice in event.choices]
        return "".join(pieces)


assert asyncio.run(ask()) == answers[0]
print("all well")
