"""One thread for images."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Images of these sizes are slower on several threads, and much slower on a machine that does something else too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
