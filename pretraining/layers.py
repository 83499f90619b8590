"""Which layers are copied and which are compared: lists of 0-based encoder layers, never -1, never silently cut short.

A list of layers may be a preset instead: `uniform` is evenly spaced and ends at the last layer, `first` and `last` are the first and the
last ones.
"""

from dataset.errors import UserError

PRESETS = ("last", "uniform", "first")
COPY_PRESETS = (*PRESETS, "distilbert")


def parse_layers(text: str, flag: str, depth: int, owner: str, presets: tuple[str, ...] = PRESETS) -> list[int]:
    """`1,3,5` -> [1, 3, 5]; UserError unless every entry is a layer of a model of `depth` layers, named `owner`.

    presets: what the flag understands beside a list, for the message.
    """
    layers = []
    for part in text.split(","):
        try:
            layer = int(part)
        except ValueError:
            raise UserError(f"{flag} {text}: {part.strip()!r} is not a layer number; write for example 1,3,5, or one of "
                            f"{', '.join(presets)}") from None
        if not 0 <= layer < depth:
            raise UserError(f"{flag} {text}: layer {layer} is outside the {owner}, whose layers are 0 to {depth - 1}")
        layers.append(layer)
    return layers


def evenly_spaced(count: int, depth: int) -> list[int]:
    """`count` layers out of `depth`, evenly spaced and ending at the last: (2, 6) of 6 -> [2, 5]; 6 of 12 -> 1, 3, ..., 11."""
    return [(index + 1) * depth // count - 1 for index in range(count)]


def end_to_end(count: int, depth: int) -> list[int]:
    """`count` >= 2 layers out of `depth`, evenly spaced from the first to the last, rounded to the nearest, halves up.

    For 6 of 12 it is DistilBERT's 0, 2, 4, 7, 9, 11.
    """
    steps = count - 1
    return [(2 * index * (depth - 1) + steps) // (2 * steps) for index in range(count)]


def copied_layers(text: str | None, count: int | None, depth: int) -> list[int]:
    """The teacher layers that --student_layers copies: a list, or a preset that needs `count`, the student's depth; None is `uniform`.

    Presets: uniform, first, last, distilbert (`end_to_end`).
    """
    preset = "uniform" if text is None else text.strip()
    if preset not in COPY_PRESETS:
        layers = parse_layers(text, "--student_layers", depth, "teacher", COPY_PRESETS)
        if count is not None and count != len(layers):
            raise UserError(f"--student_layers {text} are {len(layers)} layers, --num_hidden_layers is {count}; leave one out")
        return layers
    if count is None:
        raise UserError(f"a bare --student_initialize{'' if text is None else f' with --student_layers {text}'} needs the student's depth: "
                        "give --num_hidden_layers, or --student_layers as a list such as 0,2,4")
    if not 1 <= count <= depth:
        raise UserError(f"--num_hidden_layers {count} cannot be copied from the teacher's {depth} layers; 1 to {depth} works")
    if preset == "distilbert":
        if count < 2:
            raise UserError("--student_layers distilbert spreads from the first layer to the last and needs --num_hidden_layers 2 or more; "
                            "last or first works for 1")
        return end_to_end(count, depth)
    return _preset(preset, count, depth)


def pair_layers(
    teacher_text: str | None, student_text: str | None, teacher_depth: int, student_depth: int, default: str = "uniform",
) -> tuple[tuple[int, int], ...]:
    """((student layer, teacher layer), ...) from --layer_selection (teacher) and --student_layer_selection.

    Both are lists or presets. A preset has as many layers as the other side's list; without a list there, `last` on either side makes it
    one pair, and otherwise it is as many as the student has layers. Without --student_layer_selection one teacher layer pairs with
    the student's last and several with all student layers in order; without --layer_selection the teacher's are `default`, a preset.
    """
    teacher_text = default if teacher_text is None else teacher_text
    if student_text is None:
        is_single = _is_last(teacher_text) or (not _is_preset(teacher_text) and "," not in teacher_text)
        student_text = "last" if is_single else ",".join(map(str, range(student_depth)))
    student, teacher = _both(teacher_text, student_text, teacher_depth, student_depth)
    if len(teacher) != len(student):
        raise UserError(f"--layer_selection names {len(teacher)} teacher layers ({','.join(map(str, teacher))}) for "
                        f"{len(student)} student layers ({','.join(map(str, student))}); the lists must be equally long "
                        "(--student_layer_selection chooses the student's)")
    pairs = tuple(zip(student, teacher, strict=True))
    twice = next((pair for pair in pairs if pairs.count(pair) > 1), None)
    if twice is not None:
        raise UserError(f"--layer_selection pairs student layer {twice[0]} with teacher layer {twice[1]} twice; name each pair once")
    return pairs


def choose_layers(
    teacher_text: str | None, student_text: str | None, teacher_depth: int, student_depth: int,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(student layers, teacher layers) for objectives that concatenate layers instead of pairing them: the lists may be unequally long.

    A side that is not given is the list of all layers; presets mean what they mean in `pair_layers`.
    """
    student, teacher = _both(",".join(map(str, range(teacher_depth))) if teacher_text is None else teacher_text,
                             ",".join(map(str, range(student_depth))) if student_text is None else student_text,
                             teacher_depth, student_depth)
    for flag, layers in (("--student_layer_selection", student), ("--layer_selection", teacher)):
        twice = next((layer for layer in layers if layers.count(layer) > 1), None)
        if twice is not None:
            raise UserError(f"{flag} names layer {twice} twice; name each layer once")
    return tuple(student), tuple(teacher)


def _both(teacher_text: str, student_text: str, teacher_depth: int, student_depth: int) -> tuple[list[int], list[int]]:
    """(student layers, teacher layers); a preset takes its length from the other side."""
    sides = {"--layer_selection": (teacher_text, teacher_depth, "teacher"),
             "--student_layer_selection": (student_text, student_depth, "student")}
    found = {flag: parse_layers(text, flag, depth, owner) for flag, (text, depth, owner) in sides.items() if not _is_preset(text)}
    count = 1 if _is_last(teacher_text) or _is_last(student_text) else student_depth
    if found:
        count = len(next(iter(found.values())))
    for flag, (text, depth, owner) in sides.items():
        if flag not in found:
            if count > depth:
                raise UserError(f"{flag} {text.strip()}: {count} layers are needed and the {owner} has {depth}; give --layer_selection and "
                                "--student_layer_selection as lists")
            found[flag] = _preset(text.strip(), count, depth)
    return found["--student_layer_selection"], found["--layer_selection"]


def _preset(name: str, count: int, depth: int) -> list[int]:
    if name == "first":
        return list(range(count))
    if name == "last":
        return list(range(depth - count, depth))
    return evenly_spaced(count, depth)


def _is_preset(text: str) -> bool:
    return text.strip() in PRESETS


def _is_last(text: str) -> bool:
    return text.strip() == "last"
