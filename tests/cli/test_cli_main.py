from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NoReturn

import click
import pytest

from aimux import __main__ as entry
from aimux import __version__
from aimux.cli import main as module
from aimux.cli.main import COMMANDS, cli
from aimux.installed import compiled
from tests.cli.conftest import Aimux

BUILD = "compiled" if compiled() else "pure Python"


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["aimux", *arguments])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_the_version(aimux: Aimux) -> None:
    done = aimux("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"aimux {__version__} ({BUILD})\n", "")


@pytest.mark.parametrize("arguments", ["'--version'", "'--help'", "'completion', 'fish'"])
def test_help_and_version_import_nothing_heavy(arguments: str) -> None:
    code = f"""if True:
        import sys
        from aimux.cli.main import cli
        cli.main([{arguments}], prog_name="aimux", standalone_mode=False)
        heavy = {{"pydantic", "aiohttp", "rich", "yaml", "pluggy", "asyncio"}} & set(sys.modules)
        sys.exit(f"imported {{heavy}}" if heavy else 0)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def imported(code: str, *arguments: str, cwd: Path | None = None) -> set[str]:
    """The modules that it imports. They are counted, not seconds."""
    code = f"import sys; before = set(sys.modules)\n{code}\nprint(*set(sys.modules) - before, file=sys.stderr)"
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=True)
    return set(done.stderr.split())


def test_starting_a_command_imports_little() -> None:
    """70 of them are click's."""
    loaded = imported("import aimux.cli.main")
    assert len(loaded) <= 90, sorted(loaded)
    assert not {"importlib.metadata", "email", "zipfile", "json"} & loaded


def test_the_version_alone_imports_next_to_nothing() -> None:
    loaded = imported("from aimux.__main__ import main; main()", "--version")
    assert len(loaded) <= 8, sorted(loaded)


def test_an_interrupt_while_libraries_are_read_ends_it_without_a_traceback() -> None:
    code = """if True:
        import sys
        from aimux.__main__ import main
        class Interrupted:
            def find_spec(self, name, path, target=None):
                if name == "aimux.cli.main":
                    raise KeyboardInterrupt
        sys.meta_path.insert(0, Interrupted())
        main()
    """
    done = subprocess.run([sys.executable, "-c", code, "limits"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "")


def test_checking_the_configuration_imports_what_that_takes(tmp_path: Path) -> None:
    """Nearly all of it is click, PyYAML, pydantic, the models and the providers: not what a server needs."""
    (tmp_path / "config.yaml").write_text("listen: 127.0.0.1:1\nproviders: {claude: {}, chatgpt: {}}\n")
    code = "from aimux.cli.main import cli; cli.main(sys.argv[1:], standalone_mode=False)"
    loaded = imported(code, "check-config", "--config", "config.yaml", cwd=tmp_path)
    assert len(loaded) <= 370, sorted(loaded)
    assert not {"aiohttp", "asyncio", "sqlite3", "ssl", "cryptography", "rich"} & loaded


def test_the_help_names_every_command(aimux: Aimux) -> None:
    done = aimux("--help")
    assert done.returncode == 0
    for name, command in COMMANDS.items():
        assert name in done.stdout
        assert " ".join(command.help.split()) in " ".join(done.stdout.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_is_true(name: str) -> None:
    module_name, _, attribute = COMMANDS[name].target.partition(":")
    command = getattr(import_module(module_name), attribute)
    assert isinstance(command, click.Command)
    assert command.name == name
    assert command.get_short_help_str(limit=200) == COMMANDS[name].help
    assert command.help


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(monkeypatch, name, "--help") == 0
    assert f"Usage: aimux {name}" in capsys.readouterr().out


def test_a_misspelt_command_names_the_nearest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, "provders") == 2
    error = capsys.readouterr().err
    assert "No such command 'provders'. Did you mean 'providers'?" in error
    assert run_main(monkeypatch, "xyzzy") == 2
    assert "Did you mean" not in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["serve", "a.yaml"], ["check-config", "--json", "a.yaml"], ["a.yaml"]])
def test_a_configuration_without_its_option_is_told_it(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, *arguments) == 2
    assert "Error: A configuration is named by an option: --config a.yaml.\n" in capsys.readouterr().err
    assert run_main(monkeypatch, "import", "a.yaml") != 0
    assert "--config" not in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--config", "F"], ["serve", "--config", "F"], ["--config", "F", "serve"]])
def test_without_a_command_it_serves(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    monkeypatch.setattr("aimux.app.run", lambda *given: started.append(given))
    monkeypatch.setattr("aimux.cli.serve.config_path", lambda explicit: started.append(explicit))
    assert run_main(monkeypatch, *arguments) == 0
    [(load, _announce)] = started
    with pytest.raises(AttributeError):  # no plugins here: only which file is asked for matters
        load(None)
    assert str(started[1]) == "F"


def test_ctrl_c_ends_quietly_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr("aimux.app.run", interrupted)
    assert run_main(monkeypatch, "serve") == 130
    shown = capsys.readouterr()
    assert (shown.out + shown.err).strip() == ""


def test_ctrl_c_at_a_question_ends_with_130_and_no_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def asked(answer: BaseException | str) -> int:
        def read(_prompt: str) -> str:
            if isinstance(answer, BaseException):
                raise answer
            return answer

        monkeypatch.setattr("click.termui.visible_prompt_func", read)
        monkeypatch.setattr("aimux.app.run", lambda *_: click.confirm("sure?", abort=True))
        return run_main(monkeypatch, "serve")

    assert asked(KeyboardInterrupt()) == 130
    assert "Aborted" not in capsys.readouterr().err
    assert asked(EOFError()) == 1
    assert asked("n") == 1
    assert "Aborted" in capsys.readouterr().err


def test_a_port_in_use_is_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from aimux.front.listening import ListenError

    def refused(*_: object) -> NoReturn:
        raise ListenError("can't listen on :1: somebody else does")

    monkeypatch.setattr("aimux.app.run", refused)
    assert run_main(monkeypatch, "serve") == 1
    assert capsys.readouterr().err == "Error: Can't listen on :1: somebody else does.\n"


def test_a_wrong_configuration_is_no_traceback(aimux: Aimux) -> None:
    done = aimux("serve", AIMUX_LISTEN="nowhere", AIMUX_NO_SUCH="x")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 2
    assert "Traceback" not in done.stderr
    assert "AIMUX_LISTEN: listen: 'nowhere' has no port" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--json", "accounts"),
        ("accounts", "--json"),
        ("--json", "accounts", "show", "x"),
        ("accounts", "--json", "show", "x"),
    ],
)
def test_json_may_stand_anywhere(aimux: Aimux, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    file = tmp_path / ".aimux" / "claude" / "x" / ".credentials.json"
    file.parent.mkdir(parents=True)
    file.write_text('{"api_key": "sk-ant-api03-made-up"}')
    done = aimux(*arguments, AIMUX_LISTEN=f"unix:{tmp_path}/none")
    found = json.loads(done.stdout)
    assert (found if isinstance(found, dict) else found[0])["name"] == "x"


@pytest.mark.parametrize("arguments", [("--json",), ("--json", "config-schema"), ("--json", "completion", "bash")])
def test_json_that_nobody_prints_is_refused(aimux: Aimux, arguments: tuple[str, ...]) -> None:
    done = aimux(*arguments)
    assert done.returncode == 2
    assert "prints no JSON" in done.stderr


def commands_without_json(command: click.Command, name: str, outer: click.Context | None = None) -> Iterator[str]:
    """Whatever can be run and does not take `--json`."""
    context = click.Context(command, parent=outer, info_name=name)
    takes_it = any(parameter.name == "as_json" for parameter in command.params)
    if not isinstance(command, click.Group):
        if not takes_it:
            yield context.command_path
        return
    if command.invoke_without_command and not takes_it:
        yield context.command_path
    for inner in command.list_commands(context):
        below = command.get_command(context, inner)
        assert below is not None
        yield from commands_without_json(below, inner, context)


def test_every_command_that_shows_or_changes_something_takes_json() -> None:
    run_until_they_are_ended = {"aimux serve", "aimux demo", "aimux simulator"}
    print_a_document_of_its_own_format = {"aimux config-schema", "aimux completion"}
    without = set(commands_without_json(cli, "aimux"))
    assert without == run_until_they_are_ended | print_a_document_of_its_own_format


def test_check_config_in_json(aimux: Aimux, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("listen: 127.0.0.1:1\nlog_levle: info\ngroups: {ci: {}}\nusers: [{name: ann, token: nowhere}]\n")
    done = aimux("check-config", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, done.stderr, told["ok"]) == (1, "", False)
    problem = next(one for one in told["problems"] if one["line"] == 2)
    assert problem["path"] == "log_levle"
    assert problem["file"] == str(file)
    assert "log_level" in f"{problem['message']} {problem['remedy']}"
    assert "nowhere" not in done.stdout  # a token, maybe
    token = "a-token-of-more-than-thirty-two-characters"
    settings = {"admin": {"token": token}, "groups": {"ci": {}}}
    file.write_text(json.dumps(settings | {"providers": {"claude": {"accounts": {"ci": {"groups": ["ci"]}}}}}))
    done = aimux("check-config", "--json", "--print")
    told = json.loads(done.stdout)
    assert (done.returncode, told["ok"], told["problems"]) == (0, True, [])
    assert [account["name"] for account in told["accounts"]] == ["ci", None]
    assert told["config"]["providers"]
    assert token not in done.stdout


def test_python_m_aimux_is_aimux(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "aimux", "--version"], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"aimux {__version__} ({BUILD})\n")


@pytest.mark.parametrize("command", ["serve", "check-config", "accounts", "doctor"])
def test_another_gateways_configuration_is_known(aimux: Aimux, tmp_path: Path, command: str) -> None:
    (tmp_path / "config.yaml").write_text("port: 4000\noauth_token: sk-ant-oat01-x\nvirtual_keys: [a, b]\n")
    done = aimux(command)
    assert done.returncode == 1
    assert "is a configuration of maxmux: aimux migrate " in done.stdout + done.stderr


def test_a_wrong_configuration_of_our_own_is_nobody_elses(aimux: Aimux, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("listne: ':1'\n")
    assert "migrate" not in aimux("check-config").stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(aimux: Aimux, shell: str) -> None:
    done = aimux("completion", shell)
    assert done.returncode == 0
    assert "_AIMUX_COMPLETE" in done.stdout
    assert "aimux" in done.stdout
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=True)


def test_completion_completes(aimux: Aimux) -> None:
    done = aimux(_AIMUX_COMPLETE="bash_complete", COMP_WORDS="aimux co", COMP_CWORD="1")
    assert done.stdout.split() == ["plain,config-schema", "plain,connect", "plain,completion"]
    done = aimux(_AIMUX_COMPLETE="bash_complete", COMP_WORDS="aimux check-config --", COMP_CWORD="2")
    assert {"plain,--config", "plain,--print", "plain,--without-secrets"} <= set(done.stdout.split())


def complete(aimux: Aimux, line: str) -> list[str]:
    done = aimux(_AIMUX_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(len(line.split(" ")) - 1))
    return [word.removeprefix("plain,") for word in done.stdout.split()]


def test_completion_knows_accounts_users_and_providers(aimux: Aimux, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "providers: {claude: {}, work: {type: claude}}\n"
        "users: [{name: ann, token: a-token-of-some-length}, {name: bob, token: another-token-of-length}]\n"
    )
    for account in ("claude", "claude/ann", "work"):
        file = tmp_path / ".aimux" / account / ".credentials.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text('{"api_key": "sk-ant-api03-made-up"}')
    assert complete(aimux, "aimux login ") == ["claude", "work"]
    assert complete(aimux, "aimux import --provider w") == ["work"]
    assert complete(aimux, "aimux accounts show ") == ["claude/ann", "claude/default", "work/default"]
    assert complete(aimux, "aimux accounts test an") == ["ann"]
    assert complete(aimux, "aimux connect codex --user ") == ["ann", "bob"]
    assert complete(aimux, "aimux limits show ") == ["user:ann", "user:bob"]
    config.write_text("nonsense: [")
    assert complete(aimux, "aimux login ") == []


def test_the_group_is_the_program_s_only_entry_point() -> None:
    [script] = entry_points(name="aimux", group="console_scripts")
    assert script.load() is entry.main
    assert isinstance(cli, click.Group)
