"""The command line itself."""

import pytest

from mmscratch.__main__ import main


def test_an_unknown_command_or_option_exits_with_2(capsys):
    no_number = ["caption", "x.jpg", "--beams", "many"]
    for arguments in (
        ["fly"],
        ["quickstart", "--fusion", "hot"],
        [],
        no_number,
        ["score", "only-one.txt"],
    ):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
