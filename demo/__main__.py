"""`make demo`: distil a real teacher on real text under a budget of DEMO_MINUTES (3), and see how good the student got.

Everything it makes lies in `.demo/` and is used again by the next call.
"""

import time
from pathlib import Path

from dataset.errors import run_command
from demo.pipeline import Places, demo_minutes, prepare, score, train
from demo.report import report
from demo.workshop import Workshop, seconds_text

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    started = time.monotonic()
    minutes = demo_minutes()
    places = Places(ROOT / ".demo", f"{minutes:g}min")
    shop = Workshop(ROOT, places.work)
    prepare(shop, places.work)
    train(shop, places, minutes)
    score(shop, places)
    learnt = report(shop, places, minutes)
    shop.say(f"this call took {seconds_text(time.monotonic() - started)}")
    return 0 if learnt else 1


if __name__ == "__main__":
    run_command(main)
