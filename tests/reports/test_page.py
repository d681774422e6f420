"""The page of a run: everything escaped, nothing fetched, made of whatever evidence there is."""

import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState

from nlp_finetune.reports import charts, page
from nlp_finetune.reports.live import LiveReport, write_final
from nlp_finetune.reports.reading import read
from nlp_finetune.runs.folder import RunFolder, write_json
from tests.command_line import run
from tests.reports.made import HOSTILE, make_run

VOID = {"meta", "br", "wbr", "link", "img", "input", "hr"}


class Parsed(HTMLParser):
    """Elements of a page with their attributes, and texts of its cells; every element must be closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def ids(self) -> list[str]:
        return [str(attributes["id"]) for _, attributes in self.elements if "id" in attributes]

    def tags(self) -> list[str]:
        return [tag for tag, _ in self.elements]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a run whose class names and texts are hostile."""
    folder = make_run(tmp_path_factory.mktemp("runs") / "a run <b>", names=[*HOSTILE, "x" * 90])
    return page.write_report(folder).read_text(encoding="utf-8")


def test_hostile_names_and_texts_stay_text(hostile: str) -> None:
    parsed = Parsed(hostile)
    assert not {"script", "img", "b_", "iframe", "object"} & set(parsed.tags())
    shown = "\n".join(parsed.texts)
    for name in HOSTILE:
        assert name.replace("\x00", "\ufffd") in shown
    assert "a run <b>" in parsed.texts


def test_names_are_isolated_so_that_writing_direction_does_not_spread(hostile: str) -> None:
    for text in ("\u202eright to left\u202c", "شحن متأخر"):
        assert f"<bdi>{text}</bdi>" in hostile


def test_nothing_is_fetched_and_no_script_may_run(hostile: str) -> None:
    assert "default-src 'none'" in hostile
    parsed = Parsed(hostile)
    for _, attributes in parsed.elements:
        assert "src" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        assert str(attributes.get("href") or "#").startswith("#")
    assert not re.search(r"url\((?!#)", hostile)
    assert "@import" not in hostile


def test_every_reference_inside_the_page_has_one_target(hostile: str) -> None:
    parsed = Parsed(hostile)
    ids = parsed.ids()
    assert len(ids) == len(set(ids))
    targets = {str(a["href"])[1:] for _, a in parsed.elements if a.get("href")}
    targets |= {str(a["aria-labelledby"]) for _, a in parsed.elements if a.get("aria-labelledby")}
    targets |= set(re.findall(r"url\(#([^)]*)\)", hostile))
    assert targets <= set(ids)


def test_tables_have_captions_and_scrolling_parts_take_the_keyboard(hostile: str) -> None:
    parsed = Parsed(hostile)
    tables, captions = parsed.tags().count("table"), parsed.tags().count("caption")
    assert tables >= 6
    assert captions == tables - 1  # the matrix is described by the text above it
    for tag, attributes in parsed.elements:
        if "scroll" in str(attributes.get("class") or "").split():
            assert attributes["tabindex"] == "0"
            assert attributes["aria-label"]
        if tag == "th":
            assert attributes["scope"] in ("row", "col")


def test_colours_are_the_pages_own_in_every_plot(hostile: str) -> None:
    plots = re.findall(r"<svg.*?</svg>", hostile, flags=re.S)
    assert len(plots) == 8
    for plot in plots:
        assert not re.findall(r"#[0-9a-f]{6}", plot)
        assert "font-family" not in plot
        assert all("fill:" in style for style in re.findall(r'<text style="([^"]*)"', plot))


def test_77_classes_fit_in_a_small_page_with_all_their_counts(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "many", classes=77, rows=1500)
    text = page.write_report(folder).read_text(encoding="utf-8")
    assert len(text.encode()) < 500_000
    matrix = json.loads(folder.details.read_text())["test"]["confusion"]["matrix"]
    cells = re.findall(r'<td class="[re](?: h)?" style="--v:\d+" title="[^"]*: (\d+)">(\d+)</td>', text)
    assert sorted(int(a) for a, _ in cells) == sorted(n for row in matrix for n in row if n)
    assert all(a == b for a, b in cells)


@pytest.mark.parametrize("kept", ["recipe.yaml", "history.jsonl", "check.json", "metrics.json", "details.json"])
def test_a_page_is_made_of_whatever_files_there_are(kept: str, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", rows=60)
    for file in folder.path.iterdir():
        if file.is_file() and file.name != kept:
            file.unlink()
    Parsed(page.render_run(read(folder)))


@pytest.mark.parametrize("name", ["metrics.json", "details.json", "history.jsonl", "recipe.yaml", "progress.json"])
def test_a_damaged_file_leaves_its_section_out_and_no_more(name: str, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", rows=60)
    (folder.path / name).write_bytes(b'{"half a \xff line')
    text = page.render_run(read(folder))
    Parsed(text)
    assert "What the check found" in text


def test_the_page_shows_gradients_by_group_of_layers_and_what_is_wrong_with_them(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    text = page.render_run(read(folder))
    assert "Gradient by group of layers" in text
    assert "6 of 12 groups." in text
    assert "exploding gradients" not in text
    lines = folder.history.read_text().splitlines()
    folder.history.write_text("\n".join([*lines, json.dumps({"step": 999, "loss": 1e6, "grad_norm": 1e6})]))
    assert "<b>exploding gradients</b> at step 999" in page.render_run(read(folder))


def test_the_page_of_a_running_run_says_how_far_it_is(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", state="running")
    text = page.render_run(read(folder))
    assert "running: step 300 of 300" in text
    assert "best validation accuracy so far" in text


def test_the_page_of_a_run_with_several_seeds_shows_their_spread(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", rows=60)
    metrics = json.loads(folder.metrics.read_text())
    spread = {"mean": 0.8125, "std": 0.0187, "min": 0.79, "max": 0.83, "values": [0.79, 0.83]}
    write_json(folder.metrics, {**metrics, "seeds": {"seeds": [3, 4], "best": 4, "test": {"accuracy": spread}}})
    parsed = Parsed(page.render_run(read(folder)))
    assert "seeds" in parsed.ids()
    assert {"0.8125", "0.0187", "seed 3", "seed 4"} <= set(parsed.texts)


def test_a_page_is_drawn_again_in_a_fraction_of_a_second(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", state="running")
    page.write_report(folder)  # imports, fonts, templates
    start = time.process_time()
    page.write_report(folder)
    assert time.process_time() - start < 0.6


def live(folder: RunFolder, said: list[str]) -> LiveReport:
    return LiveReport(
        folder, metric="accuracy", greater_is_better=True, time_split=lambda: {"forward": 1.0}, say=said.append
    )


def model() -> object:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(hidden_size=8, num_hidden_layers=2, num_attention_heads=1, intermediate_size=8, vocab_size=20)
    return BertForSequenceClassification(config)


def test_a_page_that_cannot_be_written_is_said_once_and_training_goes_on(tmp_path: Path) -> None:
    folder, said = RunFolder(tmp_path), []
    folder.report.mkdir()
    callback, events = live(folder, said), (None, TrainerState(max_steps=4), TrainerControl())
    callback.on_train_begin(*events, model=model())  # type: ignore[arg-type]
    callback.on_evaluate(*events)  # type: ignore[arg-type]
    assert len(said) == 1
    assert "training goes on" in said[0]
    write_final(folder, said.append)
    assert len(said) == 2


def test_evaluations_that_follow_each_other_quickly_do_not_each_draw_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nlp_finetune.reports import live as module

    clock, drawn = [100.0], []

    def draw(folder: RunFolder) -> None:
        clock[0] += 2.0  # seconds that a page takes
        drawn.append(clock[0])

    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(module, "write_report", draw)
    callback, state = live(RunFolder(tmp_path), []), TrainerState(max_steps=99)
    events = (None, state, TrainerControl())
    callback.on_train_begin(*events, model=model())  # type: ignore[arg-type]
    for step in range(1, 100):
        state.global_step, clock[0] = step, clock[0] + 1.0
        callback.on_evaluate(*events)  # type: ignore[arg-type]
    callback.on_train_end(*events)  # type: ignore[arg-type]
    assert sum(2.0 for _ in drawn[:-1]) <= 0.06 * (clock[0] - 100.0) + 2.0
    assert read(RunFolder(tmp_path)).progress["step"] == 99
    assert len(drawn) >= 4


def test_what_trains_when_is_noted_as_it_changes(tmp_path: Path) -> None:
    net, callback = model(), live(RunFolder(tmp_path), [])
    net.bert.encoder.layer[0].requires_grad_(False)  # type: ignore[attr-defined]
    state = TrainerState(max_steps=9)
    callback.on_train_begin(None, state, TrainerControl(), model=net)  # type: ignore[arg-type]
    for step in (1, 2):
        state.global_step = step
        callback.on_step_end(None, state, TrainerControl(), model=net)  # type: ignore[arg-type]
    net.bert.encoder.layer[0].requires_grad_(True)  # type: ignore[attr-defined]
    state.global_step = 3
    callback.on_step_end(None, state, TrainerControl(), model=net)  # type: ignore[arg-type]
    state.global_step = 9
    callback.on_train_end(None, state, TrainerControl())  # type: ignore[arg-type]
    run_data = read(RunFolder(tmp_path))
    assert [change["step"] for change in run_data.progress["trained"]] == [0, 3]
    text = page.render_run(run_data)
    assert "3 to 9" in text
    assert "0 to 9" in text


def test_curves_of_long_runs_are_thinned_to_their_first_and_last_points() -> None:
    points = [(float(i), 1.0) for i in range(50_000)]
    kept = charts.thinned(points)
    assert len(kept) == 500
    assert (kept[0], kept[-1]) == (points[0], points[-1])


def test_a_label_that_looks_like_mathematics_is_drawn_as_it_is() -> None:
    svg = charts.lines("loss", {"$x_{<1}$": [(1, 2.0), (2, 3.0)], "b": [(1, 1.0)]})
    assert "$x_{&lt;1}$" in svg


def test_report_rewrites_the_page_of_a_run(tmp_path: Path) -> None:
    make_run(tmp_path / "mine", rows=60)
    done = run("report", "mine", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert done.stdout == "written: mine/report.html\n"
    done = run("report", "mine", "--json", "--output", "page.html", cwd=tmp_path)
    found = json.loads(done.stdout)
    assert (found["run"], found["report"], found["metric"]) == ("mine", "page.html", "accuracy")
    assert found["scores"]["rows"] == 60
    assert (tmp_path / "page.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nothing"], "not a run folder"),
        (["mine", "mine"], "named twice"),
        (["mine", "--output", "no/such/page.html"], "there is no folder"),
        (["mine", "--output", "."], "is a folder"),
        ([], "RUN"),
    ],
)
def test_wrong_arguments_of_report_exit_with_2_and_one_message(
    arguments: list[str], expected: str, tmp_path: Path
) -> None:
    make_run(tmp_path / "mine", rows=60)
    done = run("report", *arguments, cwd=tmp_path)
    assert done.code == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
