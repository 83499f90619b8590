"""What stands in front of a script: environment, wrappers, launchers, python; and how many processes a launcher starts."""

import re
from dataclasses import dataclass, field

from translation.conversions import product
from translation.shell import is_flag, last_name, value

_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_PYTHON = re.compile(r"python[\d.]*")
_WITH_VALUE = ("-W", "-X", "-Q")
_TORCH = ("torch.distributed.launch", "torch.distributed.run")
KEYWORDS = ("do", "then", "else", "!")
_WRAPPERS = ("env", "time", "nohup", "nice", "sudo", "exec", "taskset", "numactl", "stdbuf", "bash", "sh", *KEYWORDS)
_PROCESSES = {
    "torch": ("--nproc_per_node", "--nproc-per-node"),
    "deepspeed": ("--num_gpus", "--num_accelerators"),
    "mpi": ("-np", "-n", "--np", "-c", "--n", "--num-proc"),
    "srun": ("-n", "--ntasks"),
    "accelerate": ("--num_processes",),
}
# horovodrun's flags that mpirun has too, as mpirun calls them
_HOROVOD = {"-np": "-np", "--num-proc": "-np", "-n": "-np", "--np": "-np", "-H": "-H", "--hosts": "-H", "--hostfile": "--hostfile",
            "-hostfile": "--hostfile"}
_NODES = {"torch": ("--nnodes",), "deepspeed": ("--num_nodes",)}
_PROGRAMS = {
    "torchrun": "torch", "deepspeed": "deepspeed", "mpirun": "mpi", "mpiexec": "mpi", "orterun": "mpi", "horovodrun": "mpi",
    "srun": "srun", "accelerate": "accelerate",
}


@dataclass
class Call:
    """A command taken apart: `environment` and wrappers, the `launcher` with its flags, `python` with its flags, `script` (a path, or a
    module where `module`), `arguments`. `ranks`: how many processes run, a number or shell arithmetic; RANKS where nothing tells.
    """

    environment: list[str] = field(default_factory=list)
    launcher: list[str] = field(default_factory=list)
    kind: str = ""
    python: list[str] = field(default_factory=list)
    script: str = ""
    module: bool = False
    arguments: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The script's file name, or the module."""
        text = value(self.script)
        return text if self.module else last_name(text)

    @property
    def ranks(self) -> str:
        if not self.kind:
            return "1"
        found = {what: next((word for flag, word in _pairs(self.launcher) if flag in flags.get(self.kind, ())), None)
                 for what, flags in (("processes", _PROCESSES), ("nodes", _NODES))}
        if found["processes"] is None:
            return "1" if self.kind == "torch" else "RANKS"
        return product(found["processes"], found["nodes"] or "1")


def take_apart(words: list[str], known: frozenset[str]) -> Call | None:
    """The parts of a command, or None where nothing in it is a Python script, a module or one of the `known` programs."""
    call, at = Call(), 0
    while at < len(words):
        text = value(words[at])
        base = last_name(text)
        if _ASSIGNMENT.match(text) or base in _WRAPPERS:
            call.environment.append(words[at])
            at += 1
        elif _PYTHON.fullmatch(base):
            call.python = [words[at]]
            at = _python_flags(words, at + 1, call)
            if at >= len(words):
                return None
            if value(words[at]) == "-m":
                if at + 1 >= len(words):
                    return None
                if value(words[at + 1]) not in _TORCH:
                    return _ends(call, words, at + 1, module=True)
                call.launcher = [*call.launcher, *call.python, "-m", words[at + 1]]
                call.python, call.kind = [], "torch"
                at = _launcher_flags(words, at + 2, call.launcher, known)
                continue
            return None if is_flag(value(words[at])) else _ends(call, words, at)
        elif base in _PROGRAMS:
            call.launcher, call.kind = [*call.launcher, words[at]], _PROGRAMS[base]
            at = _launcher_flags(words, at + 1, call.launcher, known)
        elif call.kind == "torch" and text in ("-m", "--module") and at + 1 < len(words):
            return _ends(call, words, at + 1, module=True)
        elif _is_script(text, known):
            return _ends(call, words, at)
        elif call.environment and at and last_name(value(words[0])) in _WRAPPERS:
            call.environment.append(words[at])  # a flag of the wrapper, or its value
            at += 1
        else:
            return None
    return None


def without_horovod(call: Call) -> list[str]:
    """Put mpirun, whose environment is read here, in the place of horovodrun, whose is not; notes on what is left out of its flags."""
    at = next((at for at, word in enumerate(call.launcher) if last_name(value(word)) == "horovodrun"), None)
    if at is None:
        return []
    kept, lost, words = ["mpirun"], [], iter(call.launcher[at + 1:])
    for word in words:
        name, equals, text = value(word).partition("=")
        if name in _HOROVOD:
            kept += [_HOROVOD[name], text if equals else next(words, "")]
        else:
            lost.append(word)
    call.launcher = [*call.launcher[:at], *kept]
    left_out = f"; left out: {' '.join(lost)}" if lost else ""
    return [f"mpirun is in the place of horovodrun, whose HOROVOD_RANK and HOROVOD_SIZE are not read{left_out}"]


def lacks_script(words: list[str]) -> bool:
    """Whether a command is a launcher with its flags only: the script was on the next line."""
    return any(last_name(value(word)) in _PROGRAMS for word in words[:1]) or [value(word) for word in words[1:3]] in (
        ["-m", name] for name in _TORCH)


def _ends(call: Call, words: list[str], at: int, module: bool = False) -> Call:
    call.script, call.module, call.arguments = words[at], module, words[at + 1:]
    return call


def _is_script(text: str, known: frozenset[str]) -> bool:
    return text.endswith(".py") or last_name(text) in known


def _python_flags(words: list[str], at: int, call: Call) -> int:
    while at < len(words) and is_flag(word := value(words[at])) and word not in ("-m", "-c"):
        taken = 2 if word in _WITH_VALUE else 1
        call.python += words[at:at + taken]
        at += taken
    return at


def _launcher_flags(words: list[str], at: int, into: list[str], known: frozenset[str]) -> int:
    """Take words into the launcher up to python, a script or (not behind mpirun) -m."""
    mpi = _PROGRAMS.get(last_name(value(into[0]))) == "mpi"
    while at < len(words):
        text = value(words[at])
        if _is_script(text, known) or _PYTHON.fullmatch(last_name(text)) or (text in ("-m", "--module") and not mpi):
            break
        into.append(words[at])
        at += 1
    return at


def _pairs(words: list[str]) -> list[tuple[str, str]]:
    """(flag, its value) of a launcher's words, `--flag=value` too."""
    pairs = []
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, _, text = value(word).partition("=")
        if is_flag(name):
            pairs.append((name, text or value(following)))
    return pairs
