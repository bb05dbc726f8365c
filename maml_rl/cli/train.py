"""The commands that train, or fetch what training needs."""

import shlex
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path

from maml_envs import InputError
from maml_rl.cli.parse import Command, ConfigName, Keys, Positional, with_config
from maml_rl.config.few_shot import FewShotConfig
from maml_rl.config.rl import Config


class Train(Command):
    """Meta-train and write a run folder. Flags replace the keys of the configuration file."""

    config: ConfigName
    out: Path | None = None
    """Run folder, by default runs/<configuration>-s<seed>; with --seeds the folder of theirs: s1, s2 and so on."""
    seeds: tuple[int, ...] | None = None
    """Train a run of each of these seeds at once: --seeds 1 2 3."""
    resume: bool = False
    """Continue the runs there, if there are any."""
    keys: Keys[Config | FewShotConfig] = field(kw_only=True)

    @classmethod
    def start(cls, arguments: Sequence[str]) -> None:
        from maml_rl.machine import launch, ranks

        with launch.joined():
            ranks.from_main(lambda: cls.read(arguments)).run()

    @classmethod
    def read(cls, arguments: Sequence[str]) -> "Train":
        command = with_config(cls, arguments)
        if command.seeds is None:
            return command
        if not command.seeds or len(set(command.seeds)) < len(command.seeds):
            raise InputError(" ".join(["--seeds", *map(str, command.seeds)]) + ": give one or more, each once")
        flags = [argument.split("=")[0] for argument in arguments]
        if flags.count("--seed") + flags.count("--seeds") > 1:
            raise InputError("give --seeds once, and then no --seed: --seeds 1 2 3")
        return command

    def run(self) -> None:
        from maml_rl.machine import ranks
        from maml_rl.train import meta_train, meta_train_seeds

        stem = Path(self.config).stem
        if self.seeds is None:
            out = self.out or Path("runs") / f"{stem}-s{self.keys.seed}"
            runs = [meta_train(self.keys, out, self.resume)]
        else:
            out = self.out or Path("runs") / stem
            runs = meta_train_seeds(self.keys, {seed: out / f"s{seed}" for seed in self.seeds}, self.resume)
        if ranks.is_main():
            names = shlex.join(map(str, runs))
            shown = f"; tensorboard --logdir {shlex.quote(str(out))}" if "tensorboard" in self.keys.logger else ""
            print(f"trained: {names}")
            print(f"next:    maml-rl evaluate {names}; maml-rl plot {names}{shown}")


class DownloadOmniglot(Command):
    """Fetch the images of the few-shot experiments: the two zips of Omniglot as published, 15 MB, checked."""

    folder: Positional[Path]
    """Where they go."""

    def run(self) -> None:
        from maml_rl.supervised.omniglot import download

        print(*download(self.folder), sep="\n")
