from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa

from guest.client import connect
from guest.target import Trust
from relay.main import COMMANDS, main
from relay.settings import OPTIONS
from transport.certificates import Certificate, generate

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0
HASH = "Certificate SHA-256 Hash: "
LISTENING = "Listening on https://127.0.0.1:"
HEARTBEAT = b'\x00{"type":"Heartbeat"}'
HEARTBEAT_ACK = b'\x00{"type":"HeartbeatAck"}'


def environment(**more: str) -> dict[str, str]:
    ours = ("VMRELAY_", "RELAY_", "CERT_POLL_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | more


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "relay.main", *map(str, words)]


def run(*words: object, **more: str) -> subprocess.CompletedProcess[str]:
    """Run to the end; for what is not supposed to go on serving."""
    return subprocess.run(
        command(*words),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(**more),
        timeout=PATIENCE,
        check=False,
    )


class Running:
    """A relay that serves, and what it says."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.hash = ""
        self.port = 0

    async def says(self, beginning: str) -> str:
        """Wait for a line on stdout; return what stands behind its beginning."""
        return (await self._line(self.process.stdout, beginning)).removeprefix(beginning)

    async def logs(self, text: str) -> str:
        """Wait for a line on stderr that contains ``text``."""
        return await self._line(self.process.stderr, text)

    async def _line(self, stream, text: str) -> str:
        async with asyncio.timeout(PATIENCE):
            while line := (await stream.readline()).decode():
                if text in line:
                    return line.rstrip("\n")
        raise AssertionError(f"the relay ended without saying {text!r}")

    async def client(self, certificate_hash: str | None = None):
        trust = Trust(certificate_hash=bytes.fromhex(certificate_hash or self.hash))
        return await connect(f"https://127.0.0.1:{self.port}/?encap=framed", trust)

    async def ends(self) -> tuple[int, str]:
        """Wait for the end; return the exit status and the rest of stderr."""
        async with asyncio.timeout(PATIENCE):
            _, errors = await self.process.communicate()
        return self.process.returncode, errors.decode()


@contextlib.asynccontextmanager
async def relay(*flags: object, **more: str):
    process = await asyncio.create_subprocess_exec(
        *command("--bind", "127.0.0.1", "--port", 0, *flags),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env=environment(**more),
    )
    running = Running(process)
    try:
        running.hash = await running.says(HASH)
        running.port = int(await running.says(LISTENING))
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def answers(client) -> None:
    """Ask for a sign of life, and get it."""
    client.send([HEARTBEAT])
    async with asyncio.timeout(PATIENCE):
        while HEARTBEAT_ACK not in await client.receive():
            pass


def write_pair(directory: Path) -> str:
    certificate = generate(["127.0.0.1"], datetime.now(UTC))
    (directory / "key.pem").write_bytes(certificate.private_key_pem())
    (directory / "cert.pem").write_bytes(certificate.chain_pem())
    return certificate.sha256


def pair_flags(directory: Path) -> tuple[object, ...]:
    return "--cert-pem", directory / "cert.pem", "--key-pem", directory / "key.pem"


# -- what does not serve ------------------------------------------------------------------------------


def test_help_names_every_setting_and_command_and_imports_nothing_heavy():
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for name, option in OPTIONS.items():
        assert f"--{name.replace('_', '-')}" in done.stdout
        assert f"[{option.own_variable or 'VMRELAY_' + name.upper()}]" in done.stdout
    for name in COMMANDS:
        assert f"\n    {name} " in done.stdout

    code = (
        "import sys; from relay.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print(sorted({'scapy', 'aioquic', 'pykka', 'loguru'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.endswith("\n[]\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_help(name):
    done = run(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: vmrelay {name} ")


def test_version():
    done = run("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("vmrelay ")


WRONG = {
    "an unknown flag": (["--prot", "1"], {}, "unknown flag '--prot', perhaps '--port'; see vmrelay --help"),
    "a flag of another command": (["--qemu"], {}, "unknown flag '--qemu'; see vmrelay --help"),
    "a flag with one dash": (["-port", "1"], {}, "unknown flag '-port', perhaps '--port'"),
    "a flag with its value": (["--deny_cdir=::/0"], {}, "unknown flag '--deny_cdir', perhaps '--deny-cidr'"),
    "a letter": (["-p", "1"], {}, "unknown flag '-p'; see vmrelay --help"),
    "an unknown command": (["atach"], {}, "no command 'atach', perhaps 'attach' (there are serve, token, "),
    "a command behind flags": (
        ["--port", "0", "attach"],
        {},
        "unrecognized arguments: attach (commands come",
    ),
    "a flag cut short": (["--po", "1"], {}, "unknown flag '--po', perhaps '--port'"),
    "another choice": (
        ["attach", "--tap", "t", "--encap", "fremed", "https://h/"],
        {},
        "argument --encap: invalid choice: 'fremed' (choose from framed, raw), perhaps 'framed'",
    ),
    "attach's flag, before what would be the URL": (
        ["attach", "--tap", "t", "--cert-hsh", "00", "https://h/"],
        {},
        "unknown flag '--cert-hsh', perhaps '--cert-hash'; see vmrelay attach --help",
    ),
    "attach's flag, in place of one that is required": (
        ["attach", "--tpa", "t", "https://h/"],
        {},
        "unknown flag '--tpa', perhaps '--tap'",
    ),
    "shell's flag": (
        ["shell", "--insecur", "https://h/"],
        {},
        "unknown flag '--insecur', perhaps '--insecure'",
    ),
    "an action's flag": (
        ["certs", "generate", "d", "--forse"],
        {},
        "unknown flag '--forse', perhaps '--force'",
    ),
    "an action": (
        ["certs", "genrate", "d"],
        {},
        "argument ACTION: invalid choice: 'genrate' (choose from generate)",
    ),
    "a misspelt variable": (
        [],
        {"VMRELAY_DENY_CDIR": "::/0"},
        "unknown environment variable VMRELAY_DENY_CDIR, perhaps VMRELAY_DENY_CIDR (see vmrelay --help)",
    ),
    "a flag without its value": (["--port"], {}, "argument --port: expected one argument"),
    "a bad number": (["serve", "--port", "x"], {}, "--port: must be a whole number from 0 to 65535"),
    "a bad variable": ([], {"VMRELAY_DNS": "x"}, "VMRELAY_DNS: must be an IPv4 address"),
    "a missing file": (["--config", "/none.toml"], {}, "--config /none.toml: No such file or directory"),
    "a file that a variable was to name": (
        ["--config", ""],
        {},
        "--config: must be the path of a file, not ''",
    ),
    "a value of a switch": (
        ["--host-access=true"],
        {},
        "argument --host-access/--no-host-access: takes no value, not 'true'",
    ),
    "half a pair": (["--cert-pem", "x"], {}, "--cert-pem needs --key-pem (or RELAY_KEY_PEM)"),
    "the other half": ([], {"RELAY_KEY_PEM": "x"}, "--key-pem needs --cert-pem (or RELAY_CERT_PEM)"),
    "no such pair": (
        ["--cert-pem", "/none.crt", "--key-pem", "/none.key"],
        {},
        "--cert-pem /none.crt: No such file or directory",
    ),
    "an action missing": (["certs"], {}, "the following arguments are required: ACTION"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_use_is_one_line_and_status_2(case):
    words, variables, message = WRONG[case]
    done = run(*words, **variables)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    # Choices have quotes before Python 3.12.
    said = line.replace("'framed', 'raw'", "framed, raw").replace("'generate')", "generate)")
    assert said.startswith(f"vmrelay: error: {message}")


def test_what_only_looks_like_a_flag_is_none():
    done = run("shell", "-c", "-x - 1", "--", "-u")
    assert "argument URL: " in done.stderr, "-u is the URL, and -x - 1 code"
    assert "--port: must be" in run("--port", "-1").stderr


def test_an_interrupt_is_no_traceback(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("relay.certs.run", interrupted)
    assert main(["certs", "generate", "x"]) == 130


def test_a_port_in_use_is_one_line_and_status_1():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        done = run("--bind", "127.0.0.1", "--port", port, "--state", "none")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"vmrelay: error: cannot listen on 127.0.0.1 port {port}: Address already in use\n"
    )


@pytest.mark.parametrize("host", ["203.0.113.77", "a..b", "x" * 300])
def test_an_address_that_is_not_here_is_one_line_and_status_1(host):
    done = run("--bind", host, "--port", 0, "--state", "none")  # another relay may have the state of port 0
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"vmrelay: error: cannot listen on {host} port 0: ")


# -- serving ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_tells_every_peer_and_ends_with_status_0(number):
    async def scenario():
        async with relay() as running:
            clients = [await running.client() for _ in range(3)]
            for client in clients:
                await answers(client)
            running.process.send_signal(number)
            async with asyncio.timeout(PATIENCE):
                for client in clients:
                    await client.wait_closed()
            assert {client.end for client in clients} == {clients[0].end}
            assert "relay is shutting down" in clients[0].end
            status, errors = await running.ends()
            assert status == 0
            assert "Traceback" not in errors

    asyncio.run(scenario())


def test_what_is_printed_can_be_pasted():
    async def scenario():
        async with relay() as running:
            line = await running.says("var relay = ")
            assert f'new WebTransport("https://127.0.0.1:{running.port}/"' in line
            assert f'"{running.hash}"' in line

    asyncio.run(scenario())


def test_sighup_reads_the_certificate_again_and_sessions_stay(tmp_path):
    async def scenario():
        first = write_pair(tmp_path)
        async with relay(*pair_flags(tmp_path)) as running:
            assert running.hash == first
            old = await running.client()
            await answers(old)

            second = write_pair(tmp_path)
            running.process.send_signal(signal.SIGHUP)
            assert await running.says(HASH) == second
            new = await running.client(second)
            await answers(new)
            await answers(old)

            (tmp_path / "cert.pem").write_text("broken")
            running.process.send_signal(signal.SIGHUP)
            assert "no certificate in PEM form" in await running.logs("the certificate stays as it was")
            another = await running.client(second)
            for client in (old, new, another):
                await answers(client)
                client.close()

    asyncio.run(scenario())


def test_changed_files_are_noticed_without_a_signal(tmp_path):
    async def scenario():
        write_pair(tmp_path)
        async with relay(*pair_flags(tmp_path), CERT_POLL_INTERVAL="0.1") as running:
            second = write_pair(tmp_path)
            assert await running.says(HASH) == second
            client = await running.client(second)
            await answers(client)
            client.close()

    asyncio.run(scenario())


def test_an_expired_certificate_serves_with_a_warning(tmp_path):
    async def scenario():
        certificate = generate(["127.0.0.1"], datetime.now(UTC) - timedelta(days=20))
        (tmp_path / "key.pem").write_bytes(certificate.private_key_pem())
        (tmp_path / "cert.pem").write_bytes(certificate.chain_pem())
        async with relay(*pair_flags(tmp_path)) as running:
            assert " WARNING " in await running.logs("the certificate expired on ")

    asyncio.run(scenario())


def test_a_certificate_that_browsers_will_not_take_serves_with_a_warning_that_says_what_to_do(tmp_path):
    async def scenario():
        key, subject = rsa.generate_private_key(65537, 2048), x509.Name([])
        builder = x509.CertificateBuilder(
            issuer_name=subject,
            subject_name=subject,
            public_key=key.public_key(),
            serial_number=1,
            not_valid_before=datetime.now(UTC) - timedelta(days=1),
            not_valid_after=datetime.now(UTC) + timedelta(days=364),
        )
        leaf = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False
        ).sign(key, hashes.SHA256())
        certificate = Certificate((leaf,), key)
        (tmp_path / "key.pem").write_bytes(certificate.private_key_pem())
        (tmp_path / "cert.pem").write_bytes(certificate.chain_pem())
        async with relay(*pair_flags(tmp_path)) as running:
            line = await running.logs("self-signed, and browsers will not take it by its hash")
            assert " WARNING " in line
            assert "its key is RSA, not ECDSA P-256 and it is valid for 365 days, not at most 14" in line
            assert "vmrelay certs generate" in line

    asyncio.run(scenario())


def test_sigusr1_logs_the_counters_and_every_line_is_an_object():
    async def scenario():
        async with relay("--log-format", "json") as running:
            client = await running.client()
            await answers(client)
            running.process.send_signal(signal.SIGUSR1)
            entry = json.loads(await running.logs("counters:"))
            assert entry["fields"]["endpoint.accepted"] == 1
            client.close()
            running.process.send_signal(signal.SIGTERM)
            status, errors = await running.ends()
            assert status == 0
            assert json.loads(errors.splitlines()[-1])["level"] == "info"
            assert all(json.loads(line)["message"] for line in errors.splitlines())

    asyncio.run(scenario())


def test_nobody_has_to_listen_to_its_output():
    async def scenario():
        async with relay() as running:
            running.process._transport.get_pipe_transport(1).close()
            running.process._transport.get_pipe_transport(2).close()
            client = await running.client()
            await answers(client)
            running.process.terminate()
            async with asyncio.timeout(PATIENCE):
                await client.wait_closed()
                assert await running.process.wait() == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("workers", [1, 2])
def test_a_home_whose_cache_is_another_users_does_not_keep_it_from_serving(tmp_path, workers):
    (tmp_path / ".cache" / "scapy").mkdir(parents=True)
    (tmp_path / ".cache" / "scapy").chmod(0)
    # Root may look everywhere, as long as it has its capabilities.
    without = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()
    words = command(
        "--port", 0, "--bind", "127.0.0.1", "--workers", workers, "--admin", "none", "--state", "none"
    )

    async def scenario() -> None:
        process = await asyncio.create_subprocess_exec(
            *without,
            *words,
            cwd=ROOT,
            env={name: value for name, value in environment().items() if name != "XDG_CACHE_HOME"}
            | {"HOME": str(tmp_path)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            said = []
            async with asyncio.timeout(PATIENCE):
                while line := (await process.stdout.readline()).decode():
                    said.append(line)
                    if line.startswith(LISTENING):
                        break
            assert said[-1].startswith(LISTENING), "".join(said)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.communicate()

    asyncio.run(scenario())


@pytest.mark.parametrize("words", [("config", "print"), ("man",), ("completion", "bash"), ("--help",)])
def test_whoever_reads_a_beginning_of_the_output_gets_no_complaint_about_the_rest(words):
    with subprocess.Popen(
        command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, env=environment()
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(PATIENCE) in {0, 1}


@pytest.mark.parametrize("words", [("config", "print"), ("version",), ("completion", "bash")])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_disk_that_takes_no_output_is_said_and_is_no_success(words, unbuffered):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command(*words),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment() | {"PYTHONUNBUFFERED": unbuffered},
            timeout=PATIENCE,
            check=False,
        )
    said = "vmrelay: error: standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, said)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_the_locale_has_no_letters_for_is_written_otherwise(encoding):
    done = subprocess.run(
        command("--help"),
        capture_output=True,
        cwd=ROOT,
        env=environment() | {"PYTHONIOENCODING": encoding},
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"\u2026" in done.stdout
