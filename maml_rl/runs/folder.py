"""The folder of one run: who may write it, what it was made with, and its metrics."""

import errno
import json
import math
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import filelock
import tomli_w

from maml_envs import InputError
from maml_rl.config.base import METHODS, resumable_keys
from maml_rl.config.toml import AnyConfig, parse_saved, parse_toml, tables
from maml_rl.core.tree import Params
from maml_rl.machine.files import append, write
from maml_rl.runs import checkpoint
from maml_rl.runs.checkpoint import Checkpoint
from maml_rl.runs.loggers.logger import LoggedRun
from maml_rl.runs.loggers.opened import Loggers, makers


def read_config(run: Path) -> AnyConfig:
    """The configuration that a run folder was made with.

    Raises:
        InputError: The folder has none, or not a valid one.
    """
    return parse_saved(_read_toml(run / "config.toml")["config"], f"{run / 'config.toml'}")


def parameters_of(config: AnyConfig, which: str) -> str:
    """Return the name of the parameters to read: a run that is not trained has those of its checkpoint alone."""
    return which if METHODS[config.method].trains else "checkpoint"


def read_made_with(run: Path) -> dict[str, Any]:
    """Versions, commit and hardware that a run folder was made with; empty if it does not say.

    Raises:
        InputError: It says so in something else than tables.
    """
    made: Any = _read_toml(run / "config.toml").get("made_with", {})
    inner = [made.get(name, {}) for name in ("packages", "machine")] if isinstance(made, dict) else []
    if not inner or not all(isinstance(table, dict) for table in inner):
        raise InputError(f"{run / 'config.toml'} is damaged: made_with, made_with.packages and .machine are tables")
    return dict(made)


def _read_toml(path: Path) -> dict[str, Any]:
    if not path.parent.exists():
        raise InputError(f"there is no run folder {path.parent}: train first, with `maml-rl train CONFIG --out ...`")
    if not path.is_file():
        inside = any(path.parent.glob(f"*/{path.name}"))
        hint = f"; it holds run folders: give {path.parent / '*'} for all of them, or one" if inside else ""
        raise InputError(f"{path.parent} is not a run folder: it has no {path.name}{hint}")
    try:
        values = tables(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}") from None
    if not isinstance(values.get("config"), dict):
        raise InputError(f"{path} has no [config] table: it is not from this package")
    return values


def read_metrics(run: Path) -> list[dict[str, float]]:
    """Read the rows of a run's metrics.jsonl, one for each iteration.

    A last line that was cut off while it was written (no newline after it, not JSON) is left out.

    Raises:
        InputError: There is no such file, or a line of it is not a JSON object of numbers, one of them its iteration.
    """
    return [row for _, row in _lines(run)]


def _finite(row: dict[str, float]) -> dict[str, float | None]:
    """Return a row as JSON can have it: null for what is not a number, such as a cosine with a gradient of 0."""
    return {key: value if math.isfinite(value) else None for key, value in row.items()}


def _lines(run: Path) -> Iterator[tuple[str, dict[str, float]]]:
    """The lines of metrics.jsonl that hold something, and what they hold."""
    file = run / "metrics.jsonl"
    if not file.is_file():
        raise InputError(f"{file} does not exist; train first: maml-rl train CONFIG --out {run}")
    lines = file.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line.decode(), parse_int=float) if line.strip() else {}
        except (ValueError, RecursionError) as error:  # bad UTF-8, bad JSON, too deep
            if number == len(lines):
                break
            raise InputError(f"{file}, line {number} is not JSON: {error}") from error
        if not isinstance(row, dict) or not all(isinstance(value, int | float | None) for value in row.values()):
            raise InputError(f"{file}, line {number} is not an object of numbers: {line.decode():.80}")
        if row and row.get("iteration") is None:
            raise InputError(f"{file}, line {number} has no iteration: {line.decode():.80}")
        if row:
            yield line.decode(), {key: math.nan if value is None else float(value) for key, value in row.items()}


def _differences(old: dict[str, Any], new: dict[str, Any], table: str = "") -> Iterator[str]:
    for key in old | new:
        before, now = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            yield from _differences(before, now, f"{table}{key}.")
        elif before != now:
            yield f"{table}{key}: {before!r} there, {now!r} now"


def _compare(run: Path, before: AnyConfig, now: AnyConfig) -> None:
    if type(before) is not type(now):
        raise InputError(f"{run} holds a run of another kind of learning; give another --out")
    old, new = (config.model_dump(exclude=resumable_keys(type(config))) for config in (before, now))
    differ = "\n  ".join(_differences(old, new))
    if differ:
        raise InputError(f"{run} was trained with another configuration; give another --out, or mend\n  {differ}")


def _made_here(path: Path) -> bool:
    try:  # a user's own config.toml has no [made_with]
        return "[made_with]" in (path / "config.toml").read_text(errors="replace")
    except OSError:
        return False


def _holds_run(path: Path) -> bool:
    """Tell whether a folder has something of a run in it: not so where it ended before its first iteration did."""
    if any((path / f"{name}.pt").exists() for name in ("checkpoint", "checkpoint_previous", "best", "failed")):
        return True
    metrics = path / "metrics.jsonl"
    return _made_here(path) and not (metrics.is_file() and metrics.stat().st_size == 0)


def refuse_unusable(path: Path, resume: bool) -> None:
    """Refuse a folder that a run cannot be written into.

    Raises:
        InputError: It is a file, holds a run that is not to be continued, or holds something else.
    """
    try:
        str(path.resolve()).encode()
    except UnicodeEncodeError:
        raise InputError(
            f"--out {str(path)!a} is not a name in UTF-8, which TensorBoard's files need: set the variable "
            "PYTHONUTF8=1, or give another --out"
        ) from None
    for file in (path, *path.parents):
        if file.exists() and not file.is_dir():
            raise InputError(f"--out {file} is a file: give the name of a folder")
    for outer in path.resolve().parents:
        if _holds_run(outer):
            raise InputError(f"--out {path} is in the run folder {outer}, which no other run goes into: give another")
    if _holds_run(path):
        if not resume:
            raise InputError(f"{path} already holds a run: continue it with --resume, or give another --out")
    elif path.is_dir() and not _made_here(path) and any(entry.name != "lock" for entry in path.iterdir()):
        raise InputError(f"{path} is not empty and not a run folder: give another --out")


class RunFolder:
    """An open run folder: locked, and from ``begin`` on with its metrics and loggers.

    Args:
        path: The folder; made if missing.
        config: What is run.
        resume: Continue from its checkpoint if it has one; without this, a folder with a run is refused.
        about: Written into config.toml beside the configuration.
        model: Parameters like those that its checkpoint should have; None: any.

    Raises:
        InputError: The folder is in use, holds another run, or cannot be resumed, or a logger cannot be used.
    """

    def __init__(
        self, path: Path, config: AnyConfig, resume: bool, about: dict[str, Any], model: Params | None = None
    ) -> None:
        self.path, self._config = path, config
        refuse_unusable(path, resume)
        self._makers = makers(config.logger)
        path.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path / "lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise InputError(f"{path} is in use by another process: wait for it, or give another --out") from None
        except OSError as error:
            if error.errno != errno.ENOLCK:
                raise
            raise InputError(f"{path} cannot be locked, as its file system has no locks: give a local --out") from error
        with ExitStack() as opened:
            opened.callback(lock.release)
            refuse_unusable(path, resume)  # another process may have had the lock until now
            self._about, self._kept = about, list[str]()
            self.checkpoint = self._open(config, _holds_run(path), model)
            self._opened = opened.pop_all()

    def begin(self) -> "RunFolder":
        """Write what the run is, and leave out what was measured after its checkpoint; it gives itself.

        Raises:
            InputError: A logger does not start.
        """
        file, config = self.path / "config.toml", self._config.model_dump(mode="json", exclude_none=True)
        before = read_made_with(self.path) if file.is_file() else {}
        run_id = str(before.get("run_id") or secrets.token_hex(4))
        write(file, tomli_w.dumps({"made_with": self._about | {"run_id": run_id}, "config": config}))
        write(self.path / "metrics.jsonl", "".join(f"{line}\n" for line in self._kept))
        start = self.checkpoint.iteration if self.checkpoint else 0
        rows = [{name: math.nan if x is None else x for name, x in json.loads(line).items()} for line in self._kept]
        logged = LoggedRun(self.path, run_id, self._config, start, rows)
        self.loggers = self._opened.enter_context(closing(Loggers(self._makers, logged)))
        return self

    def _open(self, config: AnyConfig, has_run: bool, model: Params | None) -> Checkpoint | None:
        if not has_run:
            return None
        file, metrics = self.path / "checkpoint.pt", self.path / "metrics.jsonl"
        if not file.exists():
            previous = self.path / "checkpoint_previous.pt"
            if previous.exists():
                raise InputError(f"{self.path} has lost its checkpoint.pt: rename {previous} to it to go on from there")
            _compare(self.path, read_config(self.path), config)
            if metrics.exists() and len(list(_lines(self.path))) > 1:  # one where it was killed before the first save
                raise InputError(f"{self.path} has lost its checkpoint.pt: bring it back, or give another --out")
            return None
        found = checkpoint.load(file)
        whole = (self.path / "config.toml").exists()
        _compare(self.path, read_config(self.path) if whole else parse_toml(found.config, str(file)), config)
        if model is not None:
            checkpoint.refuse_another_model(file, found, model)
        if found.iteration and not metrics.exists():
            raise InputError(
                f"{self.path} has lost its metrics.jsonl: bring it back, or make an empty one to go on without "
                f"the rows of {found.iteration} iterations"
            )
        if metrics.exists():
            self._kept = [line for line, row in _lines(self.path) if row["iteration"] < found.iteration]
        return found

    def record(
        self, row: dict[str, float], pictures: Mapping[str, bytes], state: Checkpoint, best: Checkpoint | None
    ) -> None:
        """Log a row of metrics, then save the state after it, and what is the best so far if that is new."""
        self.log(row, pictures)
        if best:
            self.save("best.pt", best)
        self.save("checkpoint.pt", state)

    def log(self, row: dict[str, float], pictures: Mapping[str, bytes]) -> None:
        """Append a row to metrics.jsonl, and give it to the loggers, which also take pictures by their names."""
        append(self.path / "metrics.jsonl", json.dumps(_finite(row), allow_nan=False) + "\n")
        self.loggers.log(row, pictures)

    def save(self, name: str, state: Checkpoint) -> None:
        """Save a checkpoint; checkpoint.pt keeps the one before it."""
        checkpoint.save(self.path / name, state, keep_previous=name == "checkpoint.pt")

    def close(self) -> None:
        """Flush everything and let others in."""
        self._opened.close()
