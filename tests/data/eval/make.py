"""Writes videomme.parquet: three questions of our own in the columns and types of Video-MME's test-00000-of-00001.parquet, and two broken ones.

    pip install pyarrow==26.0.1
    python3 tests/data/eval/make.py
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

COLUMNS = ["video_id", "duration", "domain", "sub_category", "url", "videoID", "question_id", "task_type", "question", "options", "answer"]


def row(video, number, duration, task_type, question, options, answer):
    video_id = f"{video:03}"
    url = f"https://example.org/watch?v=clip_{video_id}"
    options = [f"{letter}. {text}" for letter, text in zip("ABCD", options)]
    question_id = f"{video_id}-{number}"
    values = [video_id, duration, "Life Record", "Travel", url, f"clip_{video_id}", question_id, task_type, question, options, answer]
    return dict(zip(COLUMNS, values))


THINGS = ["A donut.", "A tractor.", "A guitar.", "A tent, and it's red."]
ROWS = [
    row(1, 1, "short", "Object Recognition", "What is in the video?", THINGS, "B"),
    row(1, 2, "short", "Action Recognition", "Which way does it move?", ["Up.", "Left.", "Right.", "Down."], "D"),
    row(2, 1, "long", "Counting Problem", "How many things are there?", ["0.", "1.", "2.", "3."], "B"),
    row(2, 2, "long", "Counting Problem", "Which letter is no option?", ["0.", "1.", "2.", "3."], "E"),
    row(2, 3, "long", "Counting Problem", "", ["0.", "1.", "2.", "3."], "A"),
]

schema = pa.schema([(name, pa.list_(pa.string()) if name == "options" else pa.string()) for name in COLUMNS])
pq.write_table(pa.Table.from_pylist(ROWS, schema), Path(__file__).with_name("videomme.parquet"), compression="snappy")
