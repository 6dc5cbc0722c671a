"""The conversations that templates are compared with, and what transformers' renderer makes of them."""
# pip install transformers==5.17.0 jinja2==3.1.6

import itertools
import json

from transformers.utils.chat_template_utils import render_jinja_template

BOS, EOS = "<s>", "</s>"
SYSTEM = "Be brief & 'kind'."
QUESTIONS = ["\n Why is <b>it</b> \"blue\"?  ", "And at night? é😀"]
THOUGHT = "It scatters.\n\nSo blue."
ANSWER = "Light scatters.\n"


def message(role, text, media=(), thought=None):
    """A message with its content as a list of parts."""
    parts = [{"type": kind} for kind in media] + [{"type": "text", "text": text}]
    # Families read the thought by different names.
    names = ["reasoning_content", "reasoning", "thinking"] if thought is not None else []
    return {"role": role, "content": parts, **{name: thought for name in names}}


def turns(media=(), answer=ANSWER, thought=None):
    return [
        message("user", QUESTIONS[0], media),
        message("assistant", answer, thought=thought),
        message("user", QUESTIONS[1]),
    ]


CONVERSATIONS = {
    "question": [message("user", QUESTIONS[0])],
    "system": [message("system", SYSTEM), message("user", QUESTIONS[0])],
    "system without thoughts": [message("system", SYSTEM + " /no_think"), message("user", QUESTIONS[0])],
    "turns": turns(),
    "system and turns": [message("system", SYSTEM), *turns()],
    "thought": turns(thought=THOUGHT),
    "two thoughts": [*turns(thought=THOUGHT), message("assistant", "Dark.", thought="Night."), message("user", "Oh?")],
    "thought in the answer": turns(answer=f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}"),
    "unfinished thought": turns(answer="<think>\nIt scat"),
    "thought alone": turns(answer="<think>x</think>"),
    "no words": [message("user", ""), message("assistant", ""), message("user", "")],
    "odd spaces": [message("user", "\u00a0\u3000a\r\n\tb\u2028\v\f\x85"), message("assistant", " \n\u00a0"), message("user", "\n\n")],
    "image": [message("user", QUESTIONS[0], ["image"])],
    "video": [message("user", QUESTIONS[0], ["video"])],
    "image and videos": [message("user", QUESTIONS[0], ["image", "video", "video"])],
    "video and turns": turns(["video"], thought=THOUGHT),
}

# What a template is told of thinking, as `Thinking::kwargs` tells it.
THINKING = {
    "auto": {},
    "on": {"enable_thinking": True, "thinking": True},
    "off": {"enable_thinking": False, "thinking": False, "thinking_budget": 0},
}

# What else a template may read.
KWARGS = [
    {"preserve_thinking": True},
    {"clear_thinking": False},
    {"reasoning_effort": "low"},
    {"thinking_budget": 64},
    {"keep_past_thinking": True},
    {"add_vision_id": True},
    {"truncate_history_thinking": False},
    {"drop_thinking": False},
    {"skip_thinking": True},
    {"thinking_mode": "disabled"},
    {"thinking_effort": "low"},
    {"thinking_option": "off"},
    {"reasoning_strength": "low"},
    {"low_effort": True},
]


def plain(messages):
    """`messages` with content as strings, or `None` if there are videos or images."""
    if any(part["type"] != "text" for message in messages for part in message["content"]):
        return None
    return [{**message, "content": message["content"][0]["text"]} for message in messages]


def rendered(source, messages, kwargs):
    """`{"text": …}` or `{"error": …}`."""
    values = {"bos_token": BOS, "eos_token": EOS, "add_generation_prompt": True, **kwargs}
    try:
        texts, _ = render_jinja_template([messages], chat_template=source, **values)
        return {"text": texts[0]}
    except Exception as error:  # Whatever it is, the template cannot be used.
        return {"error": f"{type(error).__name__}: {error}"}


def cases(source):
    """All that is compared of a template, with what has the same result together."""
    told = [(thinking, {}) for thinking in THINKING]
    told += [("auto", extra) for extra in KWARGS if next(iter(extra)) in source]
    result = []
    for name, messages in CONVERSATIONS.items():
        by_result = {}
        for form, (thinking, extra) in itertools.product(["text", "parts"], told):
            shown = messages if form == "parts" else plain(messages)
            if shown is not None:
                made = rendered(source, shown, {**THINKING[thinking], **extra})
                of = " ".join([form, thinking, *([json.dumps(extra)] if extra else [])])
                by_result.setdefault(json.dumps(made), (made, []))[1].append(of)
        result += [{"conversation": name, "of": of, **made} for made, of in by_result.values()]
    return result
