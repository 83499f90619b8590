"""A real Chromium loads the page from file://: no error, no request, nothing wider than the window, in light and dark."""

import json
import re
import shutil
import subprocess

import pytest
from report_case import make_run, make_weights, marker_rows, reference_rows, train_event, write_rows

from evaluation.report.__main__ import main

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--enable-logging=stderr",
         "--host-resolver-rules=MAP * ~NOTFOUND"]
# What the page looks like once it is laid out, left where --dump-dom shows it.
PROBE = """<script>
const bad = [];
addEventListener("securitypolicyviolation", (event) => bad.push("refused: " + event.violatedDirective));
addEventListener("error", (event) => bad.push("error: " + event.message), true);
addEventListener("load", () => {
  const field = document.querySelector("input");
  const rows = [...document.querySelectorAll("table[data-filter] tbody tr")];
  const wide = [...document.querySelectorAll("body *")].filter((one) => !one.closest(".scroll, svg, script")
    && one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.tagName);
  const tables = document.querySelectorAll("table[data-filter]");
  const flags = [...tables].find((one) => one.id === "flags-1");
  const search = flags.parentElement.previousElementSibling;
  search.value = "teacher path";
  search.dispatchEvent(new Event("input"));
  const found = [...flags.rows].filter((row) => !row.hidden).map((row) => row.cells[0].textContent);
  const chart = document.querySelector("svg.chart");
  const result = {bad, wide, found, width: innerWidth, scroll: document.documentElement.scrollWidth,
    requests: performance.getEntriesByType("resource").map((one) => one.name), fields: document.querySelectorAll("input").length,
    tables: tables.length, paper: getComputedStyle(document.body).backgroundColor, ink: getComputedStyle(chart.querySelector("text")).fill,
    chart: chart.getBoundingClientRect().width, text: chart.querySelector("text").getBoundingClientRect().height,
    font: getComputedStyle(chart.querySelector("text")).fontFamily,
    sections: [...document.querySelectorAll("section")].filter((one) => one.getBoundingClientRect().height > 20).map((one) => one.id)};
  parent.postMessage(JSON.stringify(result), "*");
});
</script>"""
# A frame, because a window is never narrower than 500 pixels.
FRAME = """<!DOCTYPE html><meta name="color-scheme" content="light dark"><link rel="icon" href="data:,"><pre id="probe"></pre>
<script>addEventListener("message", (event) => { document.getElementById("probe").textContent = event.data; });</script>
<iframe src="NAME" style="border: 0; width: WIDTHpx; height: 900px"></iframe>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Two runs with scores, one of them going on, with losses that are not finite; names that no page must take for its own."""
    place = tmp_path_factory.mktemp("two runs & a <b>")
    teacher = make_weights(place / "teacher", "t")
    tasks = ["SST-2", "RTE", "MRPC", "CoLA"]
    first = make_run(place / "job" / "<script>throw 1<&script>", mfu=0.3, steps=100)
    write_rows(first, [*marker_rows(first, tasks, seeds=2), *reference_rows(teacher, "teacher", "teacher", tasks, 0.9)])
    second = make_run(place / "job" / ("long_name_" * 12), finished=False, seed=1, note="a_flag_without_a_space" * 12)
    with (second / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(train_event(41, 40, loss=None)) + '\n{"event": "tr')
    main([str(first), str(second), "--output_dir", str(place / "out")])
    return place / "out" / "report.html"


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on the PATH; Debian's package chromium would run this")
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, True)])
def test_it_loads_whole_and_asks_for_nothing(page, tmp_path, width, dark):
    page.with_name("probed page.html").write_text(page.read_text().replace("<head>", f"<head>{PROBE}", 1))
    probed = page.with_name("frame.html")
    probed.write_text(FRAME.replace("NAME", "probed%20page.html").replace("WIDTH", str(width)))
    done = subprocess.run(
        [BROWSER, *QUIET, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,1000",
         f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--virtual-time-budget=2000", "--dump-dom", probed.as_uri()],
        capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    seen = json.loads(found.group(1))
    assert seen["bad"] == [] and "CONSOLE" not in done.stderr, (seen["bad"], done.stderr[-2000:])
    assert seen["requests"] == []
    assert seen["sections"] == ["summary", "warnings", "scores", "training", "cost", "flags", "environment"]
    assert seen["width"] == width and seen["scroll"] <= width and seen["wide"] == []
    assert seen["fields"] == seen["tables"] == 3 and seen["found"] == ["teacher_path"]
    light, ink = [sum(map(int, re.findall(r"\d+", seen[name])[:3])) for name in ("paper", "ink")]
    assert (light < 150 and ink > 600) if dark else (light > 700 and ink < 200)
    assert 300 < seen["chart"] <= width and seen["text"] > 8 and "system-ui" in seen["font"]
