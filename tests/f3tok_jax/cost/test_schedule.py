# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A schedule as libtpu writes it, small enough to be counted by hand."""

import os
import textwrap

import pytest

from f3tok_jax.cost import schedule

# Two bundles, then a loop of 10: two of its own, a branch of one that begins a row, the product of
# four in a loop of 3 by itself, a branch of two that ends a row; three for the end of the loop.
SCHEDULE = textwrap.dedent(
    """\
    LH: loop header

         0   :  { %s1 = smov 0 }
       0x1   :  { %s2 = smov 0 }
       0x2 LB: > { %s3 = sphi %s1, %s9 } /* Start region 9 */
       0x3   : > { %7 = sbr.rel (%p1) target = $region4 }
       0x4   : > { %8 = vst [vmem:[%s3]] %v1 } /* Start region 3 :: End region 3 */
       0x5 PF: > { %s4 = sadd.s32 1, %s3 } /* Start/End empty region 4 :: Start region 5 */
       0x6   : > { %9 = sbr.rel (%p2) target = $region6 }
       0x7   : >> { %v2 = vmatmul.bf16.gmra.mxu0 %v1 } /* Start region 8 */
       0x8   : >> { %p3 = scmp.ge.s32.totalorder %s5, 3 /* loop exit test */ }
       0x9   : >> { %10 = sbr.rel (!%p3) target = $region8 }
       0xa   : > { %11 = vst [vmem:[%s4]] %v2 }
       0xb PF: > { %p4 = scmp.ne.s32.totalorder %s3, 1 } /* Start/End empty region 6 */
       0xc   : > { %12 = sbr.rel (%p4) target = $region7 }
       0xd   : > { %13 = vst [vmem:[%s3]] %v2 }
       0xe   : > { %14 = vst [vmem:[%s4]] %v2 }
       0xf PF: > { %s9 = sadd.s32 1, %s3 } /* Start/End empty region 7 */
      0x10   : > { %p5 = scmp.ge.s32.totalorder %s9, 10 /* loop exit test */ }
      0x11   :  { %15 = sbr.rel (!%p5) target = $region9 }
    """
)


def test_bundles_are_told_apart_by_how_often_they_run():
    read = schedule.parse(SCHEDULE)
    assert read.products == 10 * (3 * 3 + 1)
    assert read.edges == 10 * (1 + 2)
    assert read.always == 2 + 10 * (2 + 2 + 2 + 3)


def test_a_loop_without_a_limit_is_refused():
    without = SCHEDULE.replace("%s5, 3 /* loop exit test */", "%s5, %s6 /* loop exit test */")
    with pytest.raises(ValueError, match="must say how often it runs"):
        schedule.parse(without)


def test_a_recorder_gives_what_was_written_since_it_was_asked(monkeypatch):
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--other=1")
    with schedule.recording() as recorder:
        arguments = os.environ["LIBTPU_INIT_ARGS"].split()
        (folder,) = (
            word.split("=")[1] for word in arguments if word.startswith("--xla_jf_dump_to=")
        )
        assert arguments[0] == "--other=1"
        for name, text in (
            ("1-kernel.2-01-final_bundles.txt", "a"),
            ("2-x-00-fingerprints.txt", "b"),
        ):
            with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                file.write(text)
        assert recorder.collect() == {"kernel.2": "a"} and recorder.collect() == {}
    assert os.environ["LIBTPU_INIT_ARGS"] == "--other=1" and not os.path.exists(folder)
