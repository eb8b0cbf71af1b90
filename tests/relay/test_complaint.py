from __future__ import annotations

from relay.complaint import complain


def test_what_goes_wrong_is_told_on_standard_error_and_by_the_status(capsys):
    assert (complain(ValueError("it is not there"), 2), complain("nor is this")) == (2, 1)
    assert capsys.readouterr() == ("", "vmrelay: error: it is not there\nvmrelay: error: nor is this\n")
