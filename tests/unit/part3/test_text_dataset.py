"""Text as windows of characters: what an item is, how batches are drawn, and where the texts come from."""

import contextlib
import functools
import http.server
import socket
import threading
from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch

TEXT = "to be, or not to be: that is the question"


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def solution_config(text_file) -> Namespace:
    """The flags that concern the data, which a solution may read."""
    return Namespace(txt_file=str(text_file), block_size=7)


def test_an_item_is_a_window_and_the_same_one_character_later(part3, text_file):
    dataset = part3.dataset.TextDataset(solution_config(text_file), str(text_file), block_size=7)
    assert len(dataset) == len(TEXT) - 7
    assert dataset.vocab_size == len(set(TEXT))
    for i in (0, 5, len(dataset) - 1):
        x, y = dataset[i]
        assert x.shape == y.shape == (7,) and x.dtype == y.dtype == torch.long
        assert "".join(dataset.index_to_string[int(token)] for token in x) == TEXT[i : i + 7]
        assert "".join(dataset.index_to_string[int(token)] for token in y) == TEXT[i + 1 : i + 8]


@pytest.mark.parametrize("size", [1, 7, 30])
def test_pieces_have_the_tokens_of_the_whole_text(part3, gpt2_tokenizer_dir, size):
    """Cut at every place that is allowed, also beside white space and special tokens."""
    text = "One\n\n two\n\n\nthree's\n\t4\r\n5 \n six\n<|endoftext|>\n7\n\u00a0\n8\n" * 3
    vocabulary = part3.vocabulary.read_vocabulary(gpt2_tokenizer_dir)
    pieces = list(part3.dataset.pieces(text, size))
    assert "".join(pieces) == text and len(pieces) > 3
    assert [token for piece in pieces for token in vocabulary.encode(piece)] == vocabulary.encode(text)


def test_characters_are_numbered_in_sorted_order(part3, text_file):
    dataset = part3.dataset.TextDataset(solution_config(text_file), str(text_file), block_size=7)
    assert [dataset.string_to_index[character] for character in sorted(set(TEXT))] == list(range(len(set(TEXT))))
    assert all(dataset.index_to_string[i] == character for character, i in dataset.string_to_index.items())


def test_a_batch_is_made_of_its_items(part3, text_file):
    dataset = part3.dataset.TextDataset(None, str(text_file), block_size=7)
    x, y = dataset.__getitems__([3, 0, 11])
    for row, i in enumerate((3, 0, 11)):
        assert torch.equal(x[row], dataset[i][0]) and torch.equal(y[row], dataset[i][1])
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def test_the_last_tenth_is_for_validation(part3):
    vocabulary = part3.vocabulary.Characters("xy")
    train, val = part3.dataset.make_datasets(Namespace(block_size=3), vocabulary, "x" * 90 + "y" * 10)
    assert train.data.tolist() == [0] * 90 and val.data.tolist() == [1] * 10


def test_validation_predicts_each_character_once(part3):
    """41 characters in windows of 7 leave the targets 1 to 35."""
    dataset = part3.dataset.TextDataset(None, None, 7, text=TEXT)
    targets = torch.cat([y.flatten() for _, y in part3.dataset.val_loader(dataset, batch_size=2)])
    assert torch.equal(targets, dataset.data[1:36].long())


# -------------------------------------------------------------------------------------------- the order of steps


def test_an_epoch_takes_each_window_once_and_the_next_one_in_another_order(part3):
    steps = list(part3.dataset.Batches(30, 5, lambda: 0, 12, seed=3))
    assert [len(step) for step in steps] == [5] * 12
    first, second = torch.cat(steps[:6]), torch.cat(steps[6:])
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(30))
    assert not torch.equal(first, second)
    other = torch.cat(list(part3.dataset.Batches(30, 5, lambda: 0, 6, seed=4)))
    assert not torch.equal(first, other)


def test_steps_from_the_middle_are_those_of_the_whole(part3):
    whole = list(part3.dataset.Batches(31, 5, lambda: 0, 15, seed=3))
    for first, count in ((0, 4), (4, 1), (5, 3), (8, 7)):
        piece = list(part3.dataset.Batches(31, 5, lambda first=first: first, count, seed=3))
        assert torch.equal(torch.stack(piece), torch.stack(whole[first : first + count]))


def test_processes_share_each_step(part3):
    """Two processes with batches of 3 take together what one with batches of 6 does."""
    one = list(part3.dataset.Batches(31, 6, lambda: 0, 9, seed=3))
    two = [list(part3.dataset.Batches(31, 3, lambda: 0, 9, seed=3, rank=rank, world_size=2)) for rank in (0, 1)]
    assert torch.equal(torch.stack(one), torch.stack([torch.cat(pair) for pair in zip(*two, strict=True)]))


def test_workers_load_the_same_batches(part3):
    """Of the round after the first 2 steps, up to the fifth, which is the last."""
    dataset = part3.dataset.TextDataset(None, None, 7, text=TEXT)
    found = []
    for workers in (0, 2):
        args = Namespace(
            num_epochs=3, train_batch_size=4, max_steps=5, val_every_n_steps=10, seed=1, num_workers=workers
        )
        trainer = SimpleNamespace(world_size=1, global_rank=0, global_step=2,
                                  strategy=SimpleNamespace(root_device=torch.device("cpu")))  # fmt: skip
        found.append([torch.stack(batch) for batch in part3.dataset.round_loader(dataset, args, trainer)])
    assert len(found[0]) == 3 and torch.equal(torch.cat(found[0]), torch.cat(found[1]))


def test_too_little_text_is_an_error_that_says_what_to_do(part3):
    with pytest.raises(part3.run.InputError, match=r"a text of 41 tokens is too short for windows of 41: .*block_size"):
        part3.dataset.TextDataset(None, None, 41, text=TEXT)
    with pytest.raises(part3.run.InputError, match="has 34 windows for training, fewer than a batch of 35"):
        part3.dataset.steps_per_epoch(34, 35)


# ----------------------------------------------------------------------------------------- where texts come from


def test_pydoc_needs_no_file(part3, tmp_path):
    text = part3.dataset.load_text("pydoc", tmp_path)
    assert len(text) > 100_000 and "lambda" in text
    assert not list(tmp_path.iterdir())


def test_a_byte_order_mark_is_no_character(part3, tmp_path):
    (tmp_path / "t.txt").write_bytes("\ufefftales of Ääß".encode())
    assert part3.dataset.load_text(str(tmp_path / "t.txt"), tmp_path) == "tales of Ääß"


def test_the_licence_of_an_e_book_is_no_text_to_learn_from(part3, tmp_path):
    path = tmp_path / "t.txt"
    for begin in (
        "*** START OF THIS PROJECT GUTENBERG EBOOK A TALE ***",
        "***START OF THE PROJECT GUTENBERG EBOOK A TALE,\nOR TWO***",
    ):
        end = begin.replace("START", "END")
        frame = f"The Project Gutenberg EBook of X\n{begin}\n\n%s\n\nEnd of Project Gutenberg's X\n\n{end}\nlicence"
        path.write_text(frame % "Once.\n\n*****\n\nThe end of Project X.", encoding="utf-8")
        assert part3.dataset.load_text(str(path), tmp_path) == "Once.\n\n*****\n\nThe end of Project X.\n"
    path.write_text(frame % "One." + "\n" + frame % "Two.", encoding="utf-8")
    assert part3.dataset.load_text(str(path), tmp_path) == "One.\n\n\nTwo.\n"
    path.write_text("*** START OF THIS PROJECT GUTENBERG EBOOK X ***\nwithout an end", encoding="utf-8")
    assert part3.dataset.load_text(str(path), tmp_path) == path.read_text(encoding="utf-8"), "nothing is cut on a guess"


def test_tiny_shakespeare_is_taken_from_the_data_folder(part3, tiny_shakespeare_file, tmp_path):
    """Some copies lack the line break at the end; all give the same text."""
    text = part3.dataset.load_text("tiny_shakespeare", tiny_shakespeare_file.parent.parent)
    assert text.startswith("First Citizen:\nBefore we proceed any further, hear me speak.")
    assert len(text) == 1_115_394 and len(set(text)) == 65
    for end in (b"", b"\n"):
        copy = tmp_path / str(len(end)) / "text" / "tiny_shakespeare.txt"
        copy.parent.mkdir(parents=True)
        copy.write_bytes(tiny_shakespeare_file.read_bytes().rstrip(b"\n") + end)
        assert part3.dataset.load_text("tiny_shakespeare", copy.parent.parent) == text


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot read .*t.txt .No such file"), (b"", "t.txt is empty"), (b"\xff\xfe\x00", "is not a text in UTF-8")],
)
def test_a_file_that_is_no_text(part3, tmp_path, content, message):
    if content is not None:
        (tmp_path / "t.txt").write_bytes(content)
    with pytest.raises(part3.run.InputError, match=message):
        part3.dataset.load_text(str(tmp_path / "t.txt"), tmp_path)


class Server(http.server.ThreadingHTTPServer):
    """Serves one content for every path, and breaks off before the last bytes where some are missing."""

    def __init__(self, content: bytes | None, missing: int = 0):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200 if content is not None else 404)
                self.send_header("Content-Length", str(len(content or b"") + missing))
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, *args):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=functools.partial(self.serve_forever, poll_interval=0.01), daemon=True).start()

    def __enter__(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/input.txt"

    def __exit__(self, *error) -> None:
        self.shutdown()
        self.server_close()


def test_tiny_shakespeare_is_downloaded_and_verified(part3, tmp_path, tiny_shakespeare_file):
    content = tiny_shakespeare_file.read_bytes().rstrip(b"\n") + b"\n"
    path = tmp_path / "text" / "tiny_shakespeare.txt"
    with Server(content) as url:
        assert part3.dataset.tiny_shakespeare(path, url) == content.decode()
    assert path.read_bytes() == content
    assert part3.dataset.tiny_shakespeare(path, "http://127.0.0.1:9/not-asked") == content.decode(), "kept"


def test_another_text_is_not_taken_for_tiny_shakespeare(part3, tmp_path):
    path = tmp_path / "text" / "tiny_shakespeare.txt"
    with Server(b"something else") as url, pytest.raises(part3.run.InputError, match="invalid hash value"):
        part3.dataset.tiny_shakespeare(path, url)
    assert not path.exists()
    path.write_text("something else")
    with pytest.raises(part3.run.InputError, match="is not tiny_shakespeare, its checksum differs: remove it"):
        part3.dataset.tiny_shakespeare(path)


def test_without_a_network_the_error_names_directory_cause_and_the_way_without(part3, tmp_path):
    path, timeout = tmp_path / "text" / "tiny_shakespeare.txt", socket.getdefaulttimeout()
    causes = [(Server(None), "Not Found"), (Server(b"First Citizen:", missing=5), "invalid hash value"),
              (contextlib.nullcontext("http://127.0.0.1:9/"), "Connection refused")]  # fmt: skip
    for server, cause in causes:
        with server as url, pytest.raises(part3.run.InputError) as caught:
            part3.dataset.tiny_shakespeare(path, url)
        message = str(caught.value)
        assert all(part in message for part in (str(path.parent), cause, "--txt_file pydoc"))
        assert not list(tmp_path.rglob("*.txt"))
    assert socket.getdefaulttimeout() == timeout
