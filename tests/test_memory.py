"""The measure of memory that other tests rely on."""

from __future__ import annotations

import numpy as np

from tests import needs
from tests.memory import PEAK_IS_TOLD, run_measured

pytestmark = needs.PROC.unless(PEAK_IS_TOLD)


def test_a_programs_peak_is_its_own_and_not_that_of_who_started_it() -> None:
    here = np.ones(2**30, dtype=np.uint8)  # 1 GiB, which a fork has too
    _, small = run_measured("pass")
    said, large = run_measured("import sys; text = 'x' * int(sys.argv[1]); del text; print('done')", str(2**28))
    assert here.nbytes == 2**30
    assert said == "done\n"
    assert small < 2**27
    assert 2**28 < large < 2**28 + 2**27
