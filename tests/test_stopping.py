"""Signals and the time limit: raised while there is nothing to save, remembered from then on."""

import os
import signal
import sys
import time

import pytest

from nlp_finetune import stopping
from nlp_finetune.errors import InputError, StoppedError
from nlp_finetune.stopping import StopRequest, command_with


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.01)  # the handler runs between two steps of the interpreter


@pytest.mark.parametrize("number", StopRequest.SIGNALS)
def test_a_signal_with_nothing_to_save_ends_the_block_with_exit_code_75(number: signal.Signals) -> None:
    with pytest.raises(StoppedError, match=f"stopped by {number.name} before training") as stopped, StopRequest():
        send(number)
    assert stopped.value.exit_code == 75


def test_what_a_library_makes_of_the_interruption_is_a_stop_too() -> None:
    with pytest.raises(StoppedError), StopRequest():
        fail_in_a_library()


def fail_in_a_library() -> None:
    try:
        send(signal.SIGTERM)
    except KeyboardInterrupt as error:
        raise RuntimeError("connection closed by peer") from error


def test_wrong_input_stays_wrong_input() -> None:
    with pytest.raises(InputError), StopRequest():
        raise InputError("no such file")


def test_a_request_is_only_remembered_while_there_is_something_to_save() -> None:
    with StopRequest() as stop:
        with stop.held():
            send(signal.SIGUSR1)
        assert stop.reason == "SIGUSR1"


def test_a_second_ctrl_c_counts_only_when_it_is_not_the_echo_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    with StopRequest() as stop, stop.held():
        send(signal.SIGINT)
        send(signal.SIGINT)  # torchrun hands a terminal's Ctrl-C on
        assert not stop.at_once
        monkeypatch.setattr(stopping, "_SAME_REQUEST_S", 0.0)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
        assert stop.at_once


def test_the_time_limit_is_a_request_like_a_signal() -> None:
    with StopRequest(limit_s=0.02, limit_name="train.max_time=20ms") as stop:
        with stop.held():
            time.sleep(0.1)
        assert stop.reason == "train.max_time=20ms"
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_the_handlers_of_before_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_command_that_goes_on_has_the_folder_and_can_be_pasted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/run.py", "--recipe", "text_cls", "task.text=[a b]"])
    for name in ("RANK", "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name, raising=False)
    assert command_with("runs/x") == "python run.py --recipe text_cls 'task.text=[a b]' output_dir=runs/x"
    monkeypatch.setenv("RANK", "0")
    assert command_with("runs/x").startswith("accelerate launch run.py --recipe")
