"""Work on several threads, each of which PyTorch leaves alone."""

import threading
from collections.abc import Iterator

import pytest
import torch

from radquant.quantization.threads import side_by_side


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_items_are_worked_on_together_and_their_results_stay_in_order() -> None:
    """Each waits for the two others, which never come where one is worked on after the other."""
    all_there = threading.Barrier(3)

    def work(item: int) -> tuple[int, int, bool]:
        all_there.wait(timeout=60)
        return item, torch.get_num_threads(), torch.is_inference_mode_enabled()

    assert side_by_side(work, range(6)) == [(item, 1, True) for item in range(6)]
    assert torch.get_num_threads() == 3
    new = []
    thread = threading.Thread(target=lambda: new.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert new == [3]


def test_an_error_of_one_item_is_raised() -> None:
    def work(item: int) -> float:
        return 1 / item

    with pytest.raises(ZeroDivisionError):
        side_by_side(work, [2, 0, 1])
    assert torch.get_num_threads() == 3
    assert side_by_side(work, []) == []
