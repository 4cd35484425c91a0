r"""A function in a freshly started process, where nothing of this one is left: no caches, no warm libraries, no heap.

What lives here: `packed`, objects as bytes, with an error that says which of them cannot travel; `fresh`, which calls.

Objects travel as plain pickles. torch's own way between processes would put all tensors into shared memory, where they
would lie as in this process and not as a new one lays them out.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import pickle
from collections.abc import Callable
from typing import Any


def packed(what: str, thing: Any) -> bytes:
    """The pickle of something.

    Raises: TypeError: it holds a lambda, a closure or an open file; `what` it is stands in the message.
    """
    try:
        return pickle.dumps(thing)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TypeError(f"{what} cannot go to another process ({error}); wanted plain modules and functions defined at "
                        f"the top of a module, without lambdas or closures") from None


def fresh(function: Callable, *arguments: Any) -> Any:
    """What `function(*arguments)` returns in a new process, which ends afterwards; this one waits.

    Args: `function`, of the top of a module; `arguments`, which can be pickled.
    Raises: what the function raises; RuntimeError: the process ended before it could answer.
    """
    start = multiprocessing.get_context("spawn")             # a forked process would inherit this one's memory
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=start) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except concurrent.futures.process.BrokenProcessPool:
            raise RuntimeError("the new process ended without an answer: out of memory, or started from a script that "
                               "is not guarded by `if __name__ == \"__main__\":`") from None
