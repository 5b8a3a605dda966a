# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Nothing is printed of errors of a read that are raised, too; of others there is."""

import asyncio
import gc
import logging
import sys
import types

import pytest

from f3tok_jax.runs import quiet


def test_what_a_read_gave_up_is_not_printed(monkeypatch):
    printed = []
    monkeypatch.setattr(sys, "unraisablehook", printed.append)
    quiet.keep_quiet()

    def call(text, file="/venv/f3tok_jax/a.py"):
        code = types.SimpleNamespace(co_filename=file)
        owner = types.SimpleNamespace(cr_code=code)
        sys.unraisablehook(types.SimpleNamespace(exc_value=ValueError(text), object=owner))

    call("Encountered error while reading", "/venv/orbax/checkpoint/serialization.py")
    call("Event loop is closed")
    assert not printed
    call("a bug")
    sys.unraisablehook(types.SimpleNamespace(exc_value=ValueError("another"), object=print))
    assert [str(one.exc_value) for one in printed] == ["a bug", "another"]


@pytest.mark.parametrize("several", [False, True])
def test_what_others_of_a_save_met_is_not_printed(several, caplog):
    quiet.keep_quiet()

    async def forget() -> None:
        future = asyncio.get_running_loop().create_future()
        future.set_exception(ValueError("No space left on device"))
        if several:
            asyncio.gather(future)
            await asyncio.sleep(0)

    asyncio.run(forget())
    gc.collect()
    logging.getLogger("asyncio").error("a bug")
    assert [record.getMessage() for record in caplog.records] == ["a bug"]
