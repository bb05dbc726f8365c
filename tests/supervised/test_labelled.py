"""Classification tasks: who is in which split, labels by chance, no example twice, one rotation for each class."""

import pytest
import torch
from few_shot import Blobs, blobs, learner_of
from torch import Tensor

from maml_envs import InputError
from maml_rl.core.tree import leaves
from maml_rl.supervised import Examples, LabelledTasks, TaskBatch, labelled
from maml_rl.supervised.measures import adapted_errors, measures, references
from maml_rl.supervised.outer import query_loss

SPLITS = ("training", "validation", "test")


def numbered(sizes: list[int], *arguments: object, **more: object) -> LabelledTasks:
    """Examples that are their own row number, of classes 0, 1, ... of these sizes, and of rows in a random order."""
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    return LabelledTasks(torch.arange(float(len(labels))).unsqueeze(-1), labels, *arguments, **more)  # type: ignore[arg-type]


def rows_of(batch: TaskBatch) -> tuple[Tensor, Tensor]:
    return batch.support.inputs.squeeze(-1).long(), batch.query.inputs.squeeze(-1).long()


def labels_of(sizes: list[int]) -> Tensor:
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_held_out_tasks_come_in_pieces_that_fit(split: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task of Blobs has 15 pictures of 36 numbers: three of them are in a piece of 1,700 numbers."""
    monkeypatch.setattr(labelled, "PIECE", 1700)
    tasks = Blobs()
    pieces = list(tasks.held_out_pieces(7, split))
    assert [len(piece.query.targets) for piece in pieces] == [3, 3, 1]
    together = tasks.held_out_tasks(7, split)
    for whole, *parts in zip(leaves(together), *(leaves(piece) for piece in pieces), strict=True):
        assert torch.equal(torch.cat(parts), whole)


def test_a_class_that_changes_its_held_out_tasks_is_measured_on_those() -> None:
    class Sevens(Blobs):
        def held_out_tasks(self, count: int, split: str = "test") -> TaskBatch:
            whole = super().held_out_tasks(count, split)
            return whole._replace(query=whole.query._replace(inputs=torch.full_like(whole.query.inputs, 7.0)))

    (piece,) = Sevens().held_out_pieces(5)
    assert (piece.query.inputs == 7).all()


def test_what_is_measured_in_pieces_is_what_is_measured_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = learner_of(data="few_shot:Blobs", model={"hidden": (8,)})
    theta = learner.initial_params()
    whole, known = adapted_errors(learner, theta, 7, 2, "test"), references(learner, 7)
    assert known == learner.data.references(learner.data.held_out_tasks(7))
    monkeypatch.setattr(labelled, "PIECE", 1700)
    parts = adapted_errors(learner, theta, 7, 2, "test")
    assert {name: values.tolist() for name, values in parts.items()} == {k: v.tolist() for k, v in whole.items()}
    assert references(learner, 7) == pytest.approx(known)


UNEQUAL = [5, 9, 5, 17, 6, 5, 8, 5, 5, 30, 5, 7]


def test_the_shapes_are_the_contract() -> None:
    batch = Blobs().sample_tasks(4, torch.Generator().manual_seed(0))
    assert [tuple(x.shape) for x in batch.support] == [(4, 6, 1, 6, 6), (4, 6)]
    assert [tuple(x.shape) for x in batch.query] == [(4, 9, 1, 6, 6), (4, 9)]
    assert batch.query.targets.dtype == torch.int64


def test_examples_are_of_one_class_each_and_none_is_used_twice() -> None:
    """Classes of unequal sizes: a row that fills up the table of a small one would be of another class."""
    tasks, classes = numbered(UNEQUAL, 3, 2, 3, (6, 3, 3)), labels_of(UNEQUAL)
    seen = set()
    for split in SPLITS:
        batch = tasks._tasks(tasks._draw(300, split, torch.Generator().manual_seed(0)))
        support, query = rows_of(batch)
        both, targets = torch.cat([support, query], 1), torch.cat([batch.support.targets, batch.query.targets], 1)
        for drawn, given in zip(both, targets, strict=True):
            assert len(set(drawn.tolist())) == 15
            pairs = set(zip(classes[drawn].tolist(), given.tolist(), strict=True))
            assert len(pairs) == 3  # a class has one label, and a label one class
            assert {label for _, label in pairs} == {0, 1, 2}
        assert torch.equal(batch.support.targets, torch.tensor([0, 0, 1, 1, 2, 2]).expand(300, 6))
        assert torch.equal(batch.query.targets.sort(-1).values, torch.arange(3).repeat_interleave(3).expand(300, 9))
        seen |= set(both.flatten().tolist())
    assert seen == set(range(sum(UNEQUAL)))  # and every example is used


def test_splits_share_no_class_and_are_the_same_in_every_run() -> None:
    tasks, classes = numbered(UNEQUAL, 2, 2, 3, (6, 3, 3)), labels_of(UNEQUAL)
    found = {}
    for split in SPLITS:
        support, query = rows_of(tasks._tasks(tasks._draw(300, split, torch.Generator().manual_seed(0))))
        found[split] = set(classes[torch.cat([support, query], 1)].flatten().tolist())
        assert found[split] == set(tasks.split[split].tolist())
    assert [len(found[split]) for split in SPLITS] == [6, 3, 3]
    assert set.union(*found.values()) == set(range(12))
    again = numbered(UNEQUAL, 4, 1, 1, (4, 4, 4)).split
    assert torch.equal(torch.cat(list(again.values())), torch.cat(list(tasks.split.values())))
    assert found["training"] != set(range(6))  # not as they are listed


def test_a_split_by_default_is_seven_to_one_to_two() -> None:
    tasks = numbered([2] * 53, 5, 1, 1)
    assert [len(tasks.split[name]) for name in SPLITS] == [53 - 5 - 10, 5, 10]


def test_each_method_draws_from_its_own_classes() -> None:
    tasks, classes = numbered(UNEQUAL, 2, 2, 3, (6, 3, 3)), labels_of(UNEQUAL)
    drawn = {
        "training": tasks.sample_tasks(100, torch.Generator().manual_seed(0)),
        "validation": tasks.held_out_tasks(100, "validation"),
        "test": tasks.held_out_tasks(100),
    }
    for split, batch in drawn.items():
        assert set(classes[rows_of(batch)[0]].flatten().tolist()) == set(tasks.split[split].tolist())
    again = tasks.held_out_tasks(100)
    assert torch.equal(again.query.inputs, drawn["test"].query.inputs)
    one, same, other = (tasks.sample_tasks(5, torch.Generator().manual_seed(s)).query.inputs for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_class_gets_each_label_equally_often_and_the_place_of_a_query_says_nothing() -> None:
    count = 6000
    tasks, classes = numbered([4] * 9, 3, 1, 3, (3, 3, 3)), labels_of([4] * 9)
    batch = tasks.sample_tasks(count, torch.Generator().manual_seed(0))
    given = classes[rows_of(batch)[0]]  # (count, 3): the class with label 0, 1, 2
    tolerance = 5 * (2 / 9 / count) ** 0.5
    for kind in tasks.split["training"].tolist():
        share = (given == kind).double().mean(0)
        assert share.tolist() == pytest.approx([1 / 3] * 3, abs=tolerance)
    for label in range(3):
        share = (batch.query.targets == label).double().mean(0)
        assert share.tolist() == pytest.approx([1 / 3] * 9, abs=tolerance)
    neighbours = (batch.query.targets[:, 1:] == batch.query.targets[:, :-1]).double().mean()
    assert float(neighbours) == pytest.approx(2 / 8, abs=0.01)  # of 8 others 2 are of the same class
    # no example of a class is more often in the support set than another
    often = rows_of(batch)[0].flatten().bincount(minlength=36).double()
    used = often[often > 0] / count
    assert used.tolist() == pytest.approx([1 / 4] * 12, abs=5 * (3 / 16 / count) ** 0.5)


def test_a_class_is_turned_by_one_angle_for_the_task() -> None:
    corner = torch.zeros(12, 6, 1, 4, 4)
    corner[..., 0, 0] = 1  # which corner is black tells the angle
    corner += torch.arange(12.0)[:, None, None, None, None]  # and the least value the class
    labels = torch.arange(12).repeat_interleave(6)
    batch = LabelledTasks(corner.flatten(0, 1), labels, 2, 2, 4, (8, 2, 2), rotate=True).sample_tasks(
        800, torch.Generator().manual_seed(0)
    )

    def angles(part: Examples) -> Tensor:
        images = part.inputs - part.inputs.amin((-1, -2), keepdim=True)
        corners = torch.stack(
            [images[..., 0, 0], images[..., -1, 0], images[..., -1, -1], images[..., 0, -1]], -1
        ).squeeze(2)
        assert (corners.sum(-1) == 1).all()
        return corners.argmax(-1)

    turned = angles(batch.support).reshape(800, 2, 2)
    assert (turned[..., 0] == turned[..., 1]).all()
    of_class = turned[..., 0].gather(1, batch.query.targets)
    assert torch.equal(angles(batch.query), of_class)
    assert (turned.flatten().bincount(minlength=4) / turned.numel()).tolist() == pytest.approx([0.25] * 4, abs=0.06)
    assert (turned[:, 0] != turned[:, 1]).double().mean() == pytest.approx(0.75, abs=0.06)  # drawn for each class


def test_without_rotation_images_are_as_they_were() -> None:
    examples, labels = blobs()
    batch = LabelledTasks(examples, labels, 3, 1, 1).sample_tasks(20, torch.Generator().manual_seed(0))
    known = {image.numpy().tobytes() for image in examples}
    assert all(image.numpy().tobytes() in known for image in batch.support.inputs.flatten(0, 1))


@pytest.mark.parametrize(("kind", "largest"), [(torch.uint8, 255), (torch.uint16, 65535)])
def test_integers_are_scaled_to_one(kind: torch.dtype, largest: int) -> None:
    examples = torch.tensor([[largest, 51]] * 20, dtype=kind)
    batch = LabelledTasks(examples, torch.arange(10).repeat_interleave(2), 2, 1, 1, (4, 3, 3)).held_out_tasks(3)
    assert batch.query.inputs.dtype == torch.float32
    torch.testing.assert_close(batch.query.inputs, torch.tensor([1.0, 51 / largest]).expand(3, 2, 2))


@pytest.mark.parametrize(
    ("sizes", "arguments", "problem"),
    [
        ([5, 5, 4, 5, 3, 5], (2, 3, 2, (2, 2, 2)), r"^2 classes, such as 2, have fewer than the 5 examples of shots"),
        ([5] * 6, (3, 1, 1, (2, 2, 2)), r"^6 classes in parts of 2, 2, 2 .*; they are enough for 2 ways$"),
        ([5] * 12, (3, 1, 1), r"give classes = \[6, 3, 3\] \(a configuration: below \[data_options\]\), or "),
        ([5] * 6, (2, 1, 1, (3, 2, 2)), r"^6 classes in parts of 3, 2, 2 "),
        ([5] * 19, (2, 1, 1), r"^19 classes in parts of 15, 1, 3 "),
    ],
)  # fmt: skip
def test_too_few_classes_or_examples(sizes: list[int], arguments: tuple[object, ...], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        numbered(sizes, *arguments)


def test_a_label_for_each_example_and_a_split_by_its_name() -> None:
    with pytest.raises(InputError, match="180 examples with 179 labels"):
        LabelledTasks(blobs()[0], blobs()[1][:-1])
    with pytest.raises(ValueError, match="split = 'train'"):
        Blobs().held_out_tasks(1, "train")


def test_the_nearest_neighbour_by_hand() -> None:
    support = Examples(
        torch.tensor([[[0.0, 0.0], [4.0, 0.0]], [[0.0, 0.0], [4.0, 0.0]]]), torch.tensor([[0, 1], [1, 0]])
    )
    queries = Examples(
        torch.tensor([[[1.0, 9.0], [3.0, 0.0]], [[1.0, 0.0], [3.0, 0.0]]]), torch.tensor([[0, 0], [1, 0]])
    )
    assert Blobs().references(TaskBatch(support, queries)) == {"nearest neighbour": 3 / 4}


def test_before_training_and_adaptation_accuracy_is_one_in_n() -> None:
    learner = learner_of(data="few_shot:Blobs", model={"batch_norm": True})
    start, tasks = learner.initial_params(), 400
    found = adapted_errors(learner, start, tasks, 1, "test")
    for name in ("accuracy", "accuracy_one_by_one"):
        at_start = found[name][:, 0]
        assert at_start.mean() == pytest.approx(1 / 3, abs=4 * at_start.std() / tasks**0.5)
    strong = adapted_errors(learner, start, 40, 10, "test", lr=1.0)["accuracy"][:, -1]
    assert strong.mean() > 0.6  # the labels can be learned: they are those of the pictures


def test_the_order_of_the_queries_changes_their_order_alone() -> None:
    learner = learner_of(data="few_shot:Blobs", model={"batch_norm": True})
    theta, batch = learner.initial_params(), learner.training_tasks(0)
    task = TaskBatch(*(Examples(part.inputs[0], part.targets[0]) for part in batch))
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    shuffled = task._replace(query=Examples(task.query.inputs[order], task.query.targets[order]))
    outputs, moved = (
        torch.func.functional_call(learner.module, theta, (each.query.inputs,)) for each in (task, shuffled)
    )
    torch.testing.assert_close(moved, outputs[order], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(moved, outputs, atol=1e-3)
    one, other = measures(learner, theta, task), measures(learner, theta, shuffled)
    assert {name: float(value) for name, value in one.items()} == {name: float(v) for name, v in other.items()}


def test_permuting_the_labels_permutes_the_adapted_outputs() -> None:
    """With a head that starts at zero no class is special, so that other names for the classes change nothing."""
    learner = learner_of(data="few_shot:Blobs", model={"batch_norm": True}, inner={"lr": 0.3, "steps": 3})
    theta = learner.initial_params()
    head = list(theta)[-2:]
    theta |= {name: torch.zeros_like(theta[name]) for name in head}
    batch, other = learner.training_tasks(0), torch.tensor([2, 0, 1])
    renamed = TaskBatch(*(Examples(part.inputs, other[part.targets]) for part in batch))
    for task in range(3):
        before, after = (
            query_loss(learner, theta, TaskBatch(*(Examples(p.inputs[task], p.targets[task]) for p in each)))
            for each in (batch, renamed)
        )
        torch.testing.assert_close(before, after)


def marked(sizes: list[int], dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Images [[class, example], [200, 250]] of classes of these sizes: no two turns of them are the same."""
    pairs = [(kind, k) for kind, size in enumerate(sizes) for k in range(size)]
    images = torch.tensor([[[[kind, k], [200, 250]]] for kind, k in pairs])
    return images.to(dtype), torch.tensor([kind for kind, _ in pairs])


@pytest.mark.parametrize("rotate", [False, True])
def test_training_examples_are_labelled_by_class_and_turn(rotate: bool) -> None:
    sizes = [2, 3, 9, 2, 5, 4, 2, 6, 3, 2]
    examples, labels = marked(sizes)
    data = LabelledTasks(examples, labels, 2, 1, 1, (6, 2, 2), rotate)
    kinds = data.split["training"].tolist()
    turns = 4 if rotate else 1
    assert data.training_classes == 6 * turns
    inputs, targets = data.sample_examples((20, 300), torch.Generator().manual_seed(0))
    assert (inputs.shape, targets.shape) == ((20, 300, 1, 2, 2), (20, 300))
    for image, target in zip(inputs.flatten(0, 1), targets.flatten().tolist(), strict=True):
        turn, place = divmod(target, 6)
        kind, example = image.rot90(-turn, (-2, -1))[0, 0].int().tolist()
        assert (kind, image.rot90(-turn, (-2, -1))[0, 1].tolist()) == (kinds[place], [200, 250])
        assert example < sizes[kind]
    count = len(targets.flatten()) / (6 * turns)
    each = targets.flatten().bincount(minlength=6 * turns)
    assert ((each - count).abs() < 4.5 * count**0.5).all()  # classes of every size alike
    largest = max(kinds, key=lambda kind: sizes[kind])
    seen = inputs[targets == kinds.index(largest)][:, 0, 0, 1]
    share = seen.int().bincount(minlength=sizes[largest]) / len(seen)
    assert ((share * sizes[largest] - 1).abs() < 4.5 * (sizes[largest] / len(seen)) ** 0.5).all()
    assert torch.equal(examples, marked(sizes)[0])  # turned in copies
    again = data.sample_examples((20, 300), torch.Generator().manual_seed(0))
    assert torch.equal(again.inputs, inputs)
    assert torch.equal(again.targets, targets)


def test_training_examples_of_bytes_are_scaled() -> None:
    data = LabelledTasks(*marked([2] * 6, torch.uint8), 2, 1, 1, (2, 2, 2))
    inputs, _ = data.sample_examples((1, 5), torch.Generator().manual_seed(0))
    torch.testing.assert_close(inputs[..., 1, :], torch.tensor([200, 250]).div(255).expand(1, 5, 1, 2))
