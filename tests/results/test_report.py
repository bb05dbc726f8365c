"""The report: one page with everything in it, escaped, that a browser shows without a word of complaint."""

import base64
import html
import io
import json
import re
import shutil
import subprocess
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import films
import markupsafe
import pytest
from few_shot import tiny as tiny_few_shot
from PIL import Image
from tiny import Command, files, tiny

import maml_rl
from maml_envs import InputError
from maml_rl import meta_train
from maml_rl.results.plot import CAPTIONS, FEW_SHOT_CAPTIONS
from maml_rl.results.report import _films, report
from maml_rl.results.runs import grouped, read_runs
from maml_rl.train import meta_train as few_shot_train

NAMES = {"maml": "<script>alert(1)</script>", "oracle": 'a&b"c', "random": "random"}
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=4000",
    "--window-size=390,800",
    "--dump-dom",
]
ASK = """<script>
addEventListener("load", () => setTimeout(() => {
  const wide = [...document.querySelectorAll("body *")].filter(e => e.scrollWidth > e.clientWidth + 1
    && getComputedStyle(e).overflowX !== "visible");
  document.title = JSON.stringify({
    pictures: [...document.images].map(i => i.naturalWidth),
    films: [...document.querySelectorAll("video")].map(v => v.readyState),
    width: document.documentElement.scrollWidth, window: innerWidth,
    scroll: wide.map(e => e.tagName + "." + e.className)
  });
}, 2000));
</script>"""


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def sources(self, tag: str) -> list[bytes]:
        """What the data addresses of a kind of tag hold."""
        return [
            base64.b64decode(str(a["src"]).partition(",")[2], validate=True) for name, a in self.tags if name == tag
        ]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of each method, all evaluated, and their page."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as here:
        here.chdir(folder)
        for method, name in NAMES.items():
            meta_train(tiny(method=method), name, quiet=True)
            maml_rl.evaluate(name)
        config = Path(NAMES["oracle"]) / "config.toml"
        config.write_text(config.read_text().replace('command = ""', "command = 'maml-rl train \"<b>\"'"))
        report(list(NAMES.values()), "page.html")
    return folder


@pytest.fixture
def folder(world: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(world)
    return world


@pytest.fixture
def page(folder: Path) -> Page:
    return Page((folder / "page.html").read_text())


def test_everything_is_inside_the_page(page: Page) -> None:
    addresses = [str(value) for _, attrs in page.tags for key, value in attrs.items() if key in ("src", "href")]
    assert addresses
    assert all(address.startswith("data:") for address in addresses)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "iframe", "object", "embed", "base"})


def test_every_figure_and_film_is_there(page: Page, folder: Path) -> None:
    figures, videos = page.sources("img"), page.sources("video")
    assert [dict(a)["alt"] for tag, a in page.tags if tag == "img"] == list(CAPTIONS.values())
    for figure in figures:
        with Image.open(io.BytesIO(figure)) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 200
            picture.load()
    assert videos == [(folder / NAMES["maml"] / "videos/adaptation.mp4").read_bytes()]
    assert len(films.read(folder / NAMES["maml"] / "videos/adaptation.mp4")[0]) == 6


def test_names_and_values_are_text_and_not_markup(page: Page, folder: Path) -> None:
    text = (folder / "page.html").read_text()
    assert "<script" not in text
    assert "<b>" not in text
    assert "alert(1)" in text
    for name in NAMES.values():
        assert name in page.text
        assert str(markupsafe.escape(name)) in text
    assert 'maml-rl train "<b>"' in page.text


def test_what_the_page_says(page: Page) -> None:
    assert "navigation, preset finn2017, 5 steps, 3 runs" in page.text
    assert re.search(r"MAML: one gradient step on a held-out task .* mean over 3 tasks and one seed\.", page.text)
    assert "With one seed the interval is over tasks alone" in page.text
    table = page.text.partition("What it looks like")[0]
    assert "interval" in table
    assert re.search(r"MAML\s+1\s+-\d", table)


def test_configurations_and_the_keys_in_which_they_differ(page: Page) -> None:
    differ, _, shared = page.text.partition("Where the runs differ:")[2].partition("What they share:")
    assert re.search(r'method\s*"maml"\s*"oracle"\s*"random"', differ)
    assert "policy.hidden" not in differ
    config = tomllib.loads(shared.partition("To do it again")[0])
    assert (config["seed"], config["policy"]["hidden"], config["inner"]["first_order"]) == (1, [8], False)
    assert "\nmethod" not in shared


def test_the_commands_that_do_it_again(page: Page) -> None:
    commands = page.text.partition("To do it again")[2].strip().splitlines()
    plain = "--split in --which checkpoint --tune-lr false"
    assert commands == [
        f"# {NAMES['maml']} was trained from Python",
        f"maml-rl evaluate '{NAMES['maml']}' --tasks 3 --episodes 2 --steps 2 {plain}",
        'maml-rl train "<b>"',
        f"maml-rl evaluate '{NAMES['oracle']}' --tasks 3 --episodes 2 --steps 0 {plain}",
        "# random was trained from Python",
        f"maml-rl evaluate random --tasks 3 --episodes 2 --steps 2 {plain}",
        f"maml-rl report '{NAMES['maml']}' '{NAMES['oracle']}' random",
    ]


def test_a_random_run_has_no_time_of_training(page: Page) -> None:
    time = page.text.partition("environment steps a second")[2].partition("Wall clock of training")[0]
    assert re.findall(r"MAML|oracle|random", time) == ["MAML", "oracle"]
    shares = [int(share) for share in re.findall(r"\((\d+) %\)", time)]
    assert sum(shares[:3]) == pytest.approx(100, abs=2)


def test_nothing_is_overwritten(folder: Path, command: Command) -> None:
    before = files(folder)
    code, _, err = command("report", NAMES["maml"], "--out", "page.html")
    assert (code, files(folder)) == (2, before)
    assert err == "error: page.html is there already: give another --out, or remove it\n"


def test_a_run_that_is_not_evaluated_and_has_no_film(tmp_path: Path, folder: Path, command: Command) -> None:
    run = meta_train(tiny(env="bandit", iterations=1), tmp_path / "run", quiet=True)
    (run / "report.html").write_text("mine")
    code, out, err = command("report", run, "--films", "false")
    assert (code, out) == (0, f"{run}/report_2.html\n"), err
    assert (run / "report.html").read_text() == "mine"
    page = Page((run / "report_2.html").read_text())
    assert not page.sources("video")
    assert len(page.sources("img")) == 2  # learning curve, optimisation
    assert f"{run} is not evaluated, so not in the pictures of adaptation: maml-rl evaluate {run}" in page.text
    assert "no film" not in page.text
    assert "Returns are undiscounted" not in page.text
    assert not (run / "figures").exists()
    shown, missing = _films(grouped(read_runs([run])), True)
    assert not shown
    assert missing[0].startswith(f"no film of {run}: Bandit cannot draw itself: define render(index)")
    assert not (run / "videos").exists()


def test_runs_that_do_not_compare_are_refused_before_anything_is_written(tmp_path: Path, folder: Path) -> None:
    other = meta_train(tiny(env="bandit", iterations=1), tmp_path / "run", quiet=True)
    before = files(folder)
    with pytest.raises(InputError, match="bandit"):
        report([NAMES["maml"], other], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
    assert files(folder) == before


def test_few_shot_runs_have_a_report(tmp_path: Path, folder: Path, command: Command) -> None:
    runs = []
    for method, seed in (("maml", 1), ("maml", 2), ("random", 1)):
        run = few_shot_train(tiny_few_shot(method=method, seed=seed), tmp_path / f"{method}{seed}", quiet=True)
        maml_rl.evaluate(run, steps=1, shots=5)
        runs.append(run)
    maml_rl.evaluate(runs[0], steps=1, shots=5, which="best")
    code, out, err = command("report", *runs)
    assert (code, out) == (0, f"{runs[0]}/report.html\n"), err
    page = Page((runs[0] / "report.html").read_text())
    assert "sinusoid, evaluated with 5 shots, 3 runs" in page.text
    names = ("learning_curve", "adaptation_error", "fits")
    assert [dict(a)["alt"] for tag, a in page.tags if tag == "img"] == [FEW_SHOT_CAPTIONS[name] for name in names]
    assert not page.sources("video")
    assert "MAML: one gradient step on a held-out task " in page.text
    assert "undiscounted" not in page.text
    assert "Parameters that were best in training:" in page.text
    time = page.text.partition("iterations a second")[2].partition("Wall clock of training")[0]
    assert re.findall(r"MAML|random", time) == ["MAML"]
    ours = f"maml-rl evaluate {runs[1]} --tasks 6 --shots 5 --steps 1 --which checkpoint --tune-lr false"
    assert ours in page.text
    assert not (runs[0] / "figures").exists()


@pytest.mark.skipif(not shutil.which("chromium"), reason="there is no browser")
def test_a_browser_shows_it_on_a_small_screen(folder: Path, tmp_path: Path) -> None:
    shown = tmp_path / "shown.html"
    shown.write_text((folder / "page.html").read_text().replace("</body>", f"{ASK}</body>"))
    command = ["chromium", *FLAGS, f"--user-data-dir={tmp_path / 'browser'}", shown.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    found: dict[str, Any] = json.loads(html.unescape(re.search(r"<title>(.*?)</title>", done.stdout)[1]))
    assert len(found["pictures"]) == len(CAPTIONS)
    assert min(found["pictures"]) > 0
    assert [state >= 1 for state in found["films"]] == [True]
    assert found["width"] <= found["window"]
    assert set(found["scroll"]) <= {"DIV.wide", "PRE."}
