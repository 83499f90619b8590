"""Which layers are copied and which are compared: lists of 0-based encoder layers, never -1, never silently cut short."""

from dataset.errors import UserError


def parse_layers(text: str, flag: str, depth: int, owner: str) -> list[int]:
    """`1,3,5` -> [1, 3, 5]; UserError unless every entry is a layer of a model of `depth` layers, named `owner`."""
    layers = []
    for part in text.split(","):
        try:
            layer = int(part)
        except ValueError:
            raise UserError(f"{flag} {text}: {part.strip()!r} is not a layer number; write for example 1,3,5") from None
        if not 0 <= layer < depth:
            raise UserError(f"{flag} {text}: layer {layer} is outside the {owner}, whose layers are 0 to {depth - 1}")
        layers.append(layer)
    return layers


def evenly_spaced(count: int, depth: int) -> list[int]:
    """`count` layers out of `depth`, evenly spaced and ending at the last: (2, 6) of 6 -> [2, 5]; 6 of 12 -> 1, 3, ..., 11."""
    return [(index + 1) * depth // count - 1 for index in range(count)]


def pair_layers(
    teacher_text: str | None, student_text: str | None, teacher_depth: int, student_depth: int,
) -> tuple[tuple[int, int], ...]:
    """((student layer, teacher layer), ...) from --student_layer_selection and --layer_selection.

    One teacher layer pairs with the student's last; several pair with all student layers in order, unless
    --student_layer_selection says otherwise. Without --layer_selection the teacher's layers are evenly spaced.
    """
    if teacher_text is not None:
        teacher = parse_layers(teacher_text, "--layer_selection", teacher_depth, "teacher")
    else:
        count = len(student_text.split(",")) if student_text is not None else student_depth
        if count > teacher_depth:
            raise UserError(f"{count} student layers cannot be spread over the teacher's {teacher_depth}; "
                            "give --layer_selection and --student_layer_selection")
        teacher = evenly_spaced(count, teacher_depth)
    if student_text is not None:
        student = parse_layers(student_text, "--student_layer_selection", student_depth, "student")
    else:
        student = [student_depth - 1] if len(teacher) == 1 else list(range(student_depth))
    if len(teacher) != len(student):
        raise UserError(f"--layer_selection names {len(teacher)} teacher layers ({','.join(map(str, teacher))}) for "
                        f"{len(student)} student layers ({','.join(map(str, student))}); the lists must be equally long "
                        "(--student_layer_selection chooses the student's)")
    pairs = tuple(zip(student, teacher, strict=True))
    twice = next((pair for pair in pairs if pairs.count(pair) > 1), None)
    if twice is not None:
        raise UserError(f"--layer_selection pairs student layer {twice[0]} with teacher layer {twice[1]} twice; name each pair once")
    return pairs
