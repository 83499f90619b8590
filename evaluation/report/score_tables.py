"""The tables of scores: an overview for each protocol, model times task, and every metric of every score with its spread.

Every mean, interval, average and share of the teacher's score comes from evaluation.scoring.statistics.
"""

from collections.abc import Iterable, Sequence
from statistics import fmean

from evaluation.report.tables import EMPTY, Cell, Line, Table, count, percent, place_hours
from evaluation.scoring.panels import Entry, Panel, changes_text, counted, protocol_text, titles, told_apart
from evaluation.scoring.protocols import FLAGS, OWN_HEAD
from evaluation.scoring.statistics import CONFIDENCE, Score, average, retention
from evaluation.scoring.tables import grid_point_text

MARKS = {"*": "chosen on this dev set (a grid point or the best evaluation), so optimistic",
         "†": "began from another task's fine-tuned weights", "!": "some seeds diverged and are left out",
         "?": "not above always giving the same answer"}


def overview(shown: Sequence[Panel], last_only: bool) -> list[Table]:
    """For each protocol one table, model times task; with `last_only` of each run its last scored marker."""
    groups: dict[str, list[Panel]] = {}
    for panel in shown:
        groups.setdefault(protocol_text(panel.protocol), []).append(panel)
    firsts = [group[0] for group in groups.values()]
    return [_overview(told_apart(group[0], firsts), group, titles(group), last_only) for group in groups.values()]


def _overview(name: str, shown: list[Panel], columns: list[str], last_only: bool) -> Table:
    models: dict[tuple, dict[int, Entry]] = {}
    for place, panel in enumerate(shown):
        curves = panel.curves.values()
        entries = [*panel.references, *(entry for curve in curves for entry in (curve[-1:] if last_only else curve))]
        for entry in entries:
            models.setdefault(_who(entry, last_only), {})[place] = entry
    # References of any panel first, then runs with their markers by hours.
    order = list(dict.fromkeys(key[0] for key in models))
    keys = sorted(models, key=lambda key: (key[1] is not None, order.index(key[0]), _hours(models[key])))
    has_one_panel = [sum(panel.task == other.task for other in shown) == 1 for panel in shown]
    common = [place for place in range(len(shown)) if has_one_panel[place]
              and all(place in own and own[place].score.value is not None for own in models.values())]
    tasks = [shown[place].task for place in common]
    teacher = _common_teacher(shown, common)
    lines = []
    for key in keys:
        own = models[key]
        some = next(iter(own.values()))
        cells = [_span(own)]
        cells += [_score_cell(own.get(place)) for place in range(len(shown))]
        if tasks and len(shown) > 1:
            cells.append(percent(average([entry.score for entry in own.values()], tasks)))
        if teacher:
            cells.append(_kept(own, teacher))
        if some.owner is None or last_only:
            lines.append(Line(some.curve, some.curve, tuple(cells), some.score.role if some.owner is None else ""))
        else:
            lines.append(Line(marker_name(some.score, some.label), some.curve, tuple(cells), some.variant))
    head = ["model" if not last_only else "run or model", "hours", *columns]
    if tasks and len(shown) > 1:
        head.append(f"average of {len(tasks)}")
    if teacher:
        head.append("kept of teacher %")
    return Table(f"Protocol {name}", tuple(head), ("number",) * (len(head) - 1), tuple(lines),
                 tuple(_overview_notes(shown, columns, tasks, teacher, last_only)))


def _overview_notes(shown: list[Panel], columns: list[str], tasks: list[str], teacher: dict[int, Entry], last_only: bool) -> Iterable[str]:
    metrics = ", ".join(f"{title} {panel.headline}" for panel, title in zip(shown, columns, strict=True))
    protocol = shown[0].protocol
    how = ("models as they are, with their own heads" if protocol["name"] == OWN_HEAD
           else f"{protocol['aggregate']} over seeds ± standard deviation (n − 1)")
    yield f"In percent, {how}: {metrics}." + (" Of each run its last scored marker." if last_only else "")
    if changes := changes_text(protocol, shown[0].settings):
        differ = "Settings that differ from the defaults" if protocol["name"] in (FLAGS, OWN_HEAD) else "Flags changed the protocol"
        yield f"{differ}: {changes}."
    if len(shown) > 1:
        left = [title for panel, title in zip(shown, columns, strict=True) if panel.task not in tasks]
        yield (f"Average over the tasks that all of these models have: {', '.join(tasks)}." if tasks
               else "No average: there is no task that all of these models have.") + (f" Not in it: {', '.join(left)}." if left else "")
    if teacher:
        first = next(iter(teacher.values()))
        yield f"Kept of teacher: mean over {', '.join(shown[place].task for place in teacher)} of the share of {first.curve}'s score."
    scores = [entry.score for panel in shown for entry in panel.entries]
    used = "".join(map(_marks, scores))
    yield from (f"{mark} {meaning}." for mark, meaning in MARKS.items() if mark in used)
    chosen: dict[str, list[str]] = {}
    for entry in (entry for panel in shown for entry in panel.entries):
        if entry.score.rows[0].get("grid_point"):
            chosen.setdefault(grid_point_text(entry.score), []).append(f"{entry.score.task} of {entry.label}")
    yield from (f"Chosen of the grid: {point} for {', '.join(dict.fromkeys(names))}." for point, names in chosen.items())


def _who(entry: Entry, last_only: bool) -> tuple:
    """What one line of an overview is of."""
    return (entry.curve, entry.owner, None if entry.owner is None or last_only else entry.label)


def _hours(own: dict[int, Entry]) -> tuple:
    place = next(iter(own.values())).score.place
    return (place.get("hours", 0), place.get("step", 0))


def _span(own: dict[int, Entry]) -> Cell:
    """Hours of what one line is of; last markers of one run differ where its tasks were not all scored yet."""
    found = sorted({entry.score.hours for entry in own.values() if entry.score.hours is not None})
    if not found:
        return EMPTY
    return place_hours(found[0]) if len(found) == 1 else Cell(f"{found[0]:.4g} to {found[-1]:.4g}", found[-1])


def _common_teacher(shown: list[Panel], common: list[int]) -> dict[int, Entry]:
    """The first teacher by panel, where all of `common` have the same and where it has learnt something; {} where there is none."""
    found = {place: shown[place].teacher for place in common}
    names = {entry.curve if entry else None for entry in found.values()}
    return {place: entry for place, entry in found.items() if entry.score.has_learnt} if len(names) == 1 and None not in names else {}


def _kept(own: dict[int, Entry], teacher: dict[int, Entry]) -> Cell:
    shares = [retention(own[place].score, entry.score) for place, entry in teacher.items()]
    return EMPTY if None in shares else percent(fmean(shares))


def marker_name(score: Score, label: str) -> str:
    """Such as "25 %, step 45"."""
    place = score.place
    return f"{100 * place['fraction']:g} %, step {place['step']}" if {"fraction", "step"} <= set(place) else label


def _marks(score: Score) -> str:
    marks = {"*": score.selected_on_dev, "†": score.start, "!": score.diverged, "?": score.value is not None and not score.has_learnt}
    return "".join(mark for mark, holds in marks.items() if holds)


def learnt_nothing(shown: Sequence[Panel]) -> list[str]:
    """A line for each run or model and task whose headline is not above that of always giving the same answer, or is not there."""
    found = []
    for panel, title in zip(shown, titles(shown), strict=True):
        for name, entries in [*((entry.curve, [entry]) for entry in panel.references), *panel.curves.items()]:
            markers = f" in any of {counted(len(entries), 'marker')}" if len(entries) > 1 else ""
            scored = [entry.score for entry in entries if entry.score.value is not None]
            low = [score for score in scored if not score.has_learnt]
            if not scored:
                found.append(f"{name} has no score on {title}: every seed diverged{markers}")
            elif len(low) == len(scored):
                found.append(f"{name} has learnt nothing on {title}{markers}: {_beside_floor(low[-1], panel)}")
            elif low:
                places = ", ".join(marker_name(score, score.model) for score in low[:4])
                found.append(f"{name} had learnt nothing on {title} in {len(low)} of {counted(len(scored), 'marker')} "
                             f"({places}{', ...' if low[4:] else ''}): {_beside_floor(low[-1], panel)}")
    return found


def _beside_floor(score: Score, panel: Panel) -> str:
    return f"{100 * score.value:.1f}, always the same answer gives {100 * panel.floor:.1f}"


def _score_cell(entry: Entry | None) -> Cell:
    if entry is None:
        return EMPTY
    if entry.score.value is None:
        return Cell("diverged")
    deviation = entry.score.metrics[entry.score.headline].deviation
    return Cell(f"{100 * entry.score.value:.1f}{_marks(entry.score)}", entry.score.value,
                "" if deviation is None else f"± {100 * deviation:.1f}")


def all_scores(shown: Sequence[Panel]) -> Table:
    """Every metric of every score with its spread."""
    lines = []
    for panel, title in zip(shown, titles(shown, beside_protocol=True), strict=True):
        ordered = [*panel.references, *(entry for curve in panel.curves.values() for entry in curve)]
        for entry in ordered:
            lines += _score_lines(panel, title, entry, told_apart(panel, shown))
    head = ("model", "hours", "task", "metric", "mean", "median", "deviation", "n", f"{CONFIDENCE:.0%} interval of the mean",
            "kept of teacher", "floor", "protocol", "remarks")
    kinds = ("number", "words", "words", *["number"] * 7, "words", "words")
    return Table("All scores", head, kinds, tuple(lines), (
        "In percent. Deviation: of the sample (n − 1). Interval: Student's t. n: seeds that did not diverge. Floor: what always giving "
        "the same answer scores. Protocol: name, version, first digits of its hash, and whether its mean or its median counts.",))


def _score_lines(panel: Panel, title: str, entry: Entry, protocol: str) -> list[Line]:
    score = entry.score
    name = entry.label if entry.owner is None else f"{entry.owner}, {marker_name(score, entry.label)}"
    teacher = panel.teacher
    remarks = [entry.variant] if entry.variant else []
    remarks += ["chosen on dev"] if score.selected_on_dev else []
    remarks += [f"started from {score.start}"] if score.start else []
    remarks += [f"diverged: {_seeds(score.diverged)}"] if score.diverged else []
    remarks += ["not above the floor"] if score.value is not None and not score.has_learnt else []
    how = Cell(protocol, about="" if score.protocol["name"] == OWN_HEAD else f"{score.protocol['aggregate']}, {_seeds(score.seeds)}")
    lines = []
    for metric in score.metrics or [score.headline]:
        spread = score.metrics.get(metric)
        kept = retention(score, teacher.score) if teacher and teacher is not entry and metric == score.headline else None
        numbers = [EMPTY, EMPTY, EMPTY, count(0), EMPTY] if spread is None else [
            percent(spread.mean, 2), percent(spread.median, 2), percent(spread.deviation, 2), count(len(spread.values)),
            EMPTY if spread.interval is None else Cell(" to ".join(f"{100 * end:.2f}" for end in spread.interval), spread.interval[0])]
        lines.append(Line(name, entry.owner or entry.curve, (
            place_hours(score.hours), Cell(title), Cell(metric, about="headline" if metric == score.headline else ""), *numbers,
            percent(kept), percent(score.constant_metrics.get(metric)), how, Cell("; ".join(remarks))), score.role))
    return lines


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
