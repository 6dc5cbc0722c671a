#!/usr/bin/env python3
"""Writes what transformers' renderer makes of the templates and constructs here, as JSON beside them.

    python3 make.py            write it
    python3 make.py --check    compare it with what this script writes
"""
# pip install transformers==5.17.0 jinja2==3.1.6

import json
import sys
from pathlib import Path

import jinja2
import transformers

from cases import CONVERSATIONS, cases, rendered
from constructs import CONSTRUCTS, VALUES

HERE = Path(__file__).resolve().parent
VERSIONS = {"transformers": transformers.__version__, "jinja2": jinja2.__version__}


def lines(items):
    """JSON with a line for each item."""
    return "[\n" + ",\n".join("  " + json.dumps(item, ensure_ascii=False) for item in items) + "\n]"


def files():
    yield "conversations.json", json.dumps(CONVERSATIONS, ensure_ascii=False, indent=1) + "\n"
    values = {name: value for name, value in VALUES.items() if name != "messages"}
    made = [{"source": source, **rendered(source, VALUES["messages"], values)} for source in CONSTRUCTS]
    values = json.dumps(VALUES, ensure_ascii=False)
    head = f'{{"versions": {json.dumps(VERSIONS)},\n"values": {values},\n"constructs": '
    yield "constructs.json", head + lines(made) + "}\n"
    for path in sorted(HERE.glob("*.jinja")):
        head = f'{{"versions": {json.dumps(VERSIONS)},\n"cases": '
        yield f"{path.stem}.json", head + lines(cases(path.read_text())) + "}\n"


def main():
    check = sys.argv[1:] == ["--check"]
    different = []
    for name, text in files():
        path = HERE / name
        if not check:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            different.append(name)
    if different:
        sys.exit(f"not what this script writes: {', '.join(different)}")


if __name__ == "__main__":
    main()
