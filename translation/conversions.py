"""How old values become ours: pure functions on the text of one word, and products of numbers that may be shell variables."""

from collections.abc import Callable

from translation.shell import last_name, variable

Convert = Callable[[str], str]
ENDINGS = (".txt", ".pickle", ".pkl", ".pth", ".pt", ".bin", ".tfrecord", ".hdf5", ".json")
TRUE, FALSE = ("true", "1", "yes", "on", "t", "y"), ("false", "0", "no", "off", "f", "n")


def same(text: str) -> str:
    """as it is"""
    return text


def folder_of(text: str) -> str:
    """the folder of the file"""
    stripped = text.split(",")[0].rstrip("/")
    if variable(stripped):
        return f"$(dirname {stripped})"
    return stripped.rpartition("/")[0] or ("/" if text.startswith("/") else ".")


def name_of(text: str) -> str:
    """its last name"""
    stripped = text.rstrip("/")
    if variable(stripped):
        return f"$(basename {stripped})"
    return last_name(stripped)


def without_ending(text: str) -> str:
    """the folder called as the file without its ending"""
    stripped = text.rstrip("/")
    name = variable(stripped)
    if name:
        return f"${{{name}%.*}}"
    return next((stripped.removesuffix(ending) for ending in ENDINGS if stripped.endswith(ending)), stripped)


def as_json(text: str) -> str:
    """with the ending .json"""
    return f"{without_ending(text)}.json"


def samples_of_text(text: str) -> str:
    """the same name"""
    return text.rstrip("/") or text


def digit(text: str) -> str:
    """1 or 0"""
    return "1" if truth(text) else "0"


def truth(text: str) -> bool | None:
    """What a boolean's word says; None for a word that says neither."""
    lowered = text.lower()
    return True if lowered in TRUE else False if lowered in FALSE else None


def number(text: str) -> float | None:
    """The number that a word is, or None."""
    try:
        return float(text)
    except ValueError:
        return None


def shortest(value: float) -> str:
    """A number as people write it."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else f"{value:.6g}"


def product(*factors: str) -> str:
    """Their product: a number, or the shell's arithmetic where some are variables; PRODUCT where a factor is neither."""
    known, unknown = 1.0, []
    flat = [one for factor in factors for one in factor.removeprefix("$((").removesuffix("))").split(" * ")]
    for factor in flat:
        value = number(factor)
        if value is None:
            unknown.append(variable(factor) or (factor if factor not in factors else ""))
        else:
            known *= value
    if not unknown:
        return shortest(known)
    if "" in unknown:
        return "PRODUCT"
    return f"$(({' * '.join([shortest(known)] * (known != 1) + unknown)}))"


def quotient(text: str, divisor: str) -> str:
    """Whole part of a quotient of two words, at least 1; the shell's arithmetic where one is a variable."""
    left, right = number(text), number(divisor)
    if left is not None and right is not None:
        return str(max(1, int(left // right)))
    if right == 1:
        return text
    names = [one if number(one) is not None else variable(one) for one in (text, divisor)]
    return "QUOTIENT" if None in names else f"$(({names[0]} / {names[1]}))"
