# SPDX-License-Identifier: GPL-2.0-or-later
"""Plays a scene of scenes.py: runs what a document says, and compares what it shows.

Not responsible for where it runs: check-commands enters the scratch place before.
"""
import json
import os
import pty
import re
import shutil
import subprocess
import tempfile

import support
import vm

PROMPT = re.compile(r"^[$#] ")
SPACE = "(?: |\N{NO-BREAK SPACE})"
WAIT = 30


class Wrong(Exception):
    """A command did not do what the document says."""


def split(text):
    """A block as [(command, what it prints)]; without prompts it is one command."""
    if not PROMPT.match(text):
        return [(text, "")]
    parts = []
    command_goes_on = False
    for line in text.split("\n"):
        if command_goes_on:
            parts[-1][0] += "\n" + line
        elif PROMPT.match(line):
            parts.append([line[2:], ""])
        else:
            parts[-1][1] += line + "\n"
        command_goes_on = (command_goes_on or PROMPT.match(line)) and line.endswith("\\")
    return [tuple(part) for part in parts]


def expression(text, similar):
    """What a printed text must match: "..." is anything, and with similar any number a number."""
    lines = []
    for line in text.strip().split("\n"):
        line = re.escape(line.rstrip()).replace(r"\.\.\.", ".*")
        line = re.sub(r"(\\ )+", r"\\s+", line) if similar else line
        lines.append(re.sub(r"\d[\d,]*(\\\.\d+)?", r"[0-9.,]+", line) if similar else line)
    return ("(?s:.*)\n" if similar == "lines" else "\n").join(lines)


def compare(printed, expected, similar=False):
    text = printed.replace("\N{NO-BREAK SPACE}", " ")
    text = "\n".join(line.rstrip() for line in text.strip().split("\n"))
    whole = "(?s:.*)%s(?s:.*)" if similar == "lines" else "%s"
    if not re.fullmatch(whole % expression(expected, similar), text):
        raise Wrong("it printed\n%s\ninstead of\n%s" % (text, expected.strip()))


class Stage:
    def __init__(self, scene, snippets):
        self.scene, self.snippets = scene, snippets
        self.printed = ""
        self.machine = self.qemu = None
        self.directory = tempfile.mkdtemp(dir="/tmp")
        self.logs = 0
        self.folder = scene.folder

    def play(self):
        """(case, what is wrong or None, why it is skipped or None) for every documented step."""
        broken = None
        for step in self.scene.steps:
            name, wrong, skip = " " + step.first.split("\n")[0], broken, None
            lacks = [tool for tool in step.needs if not shutil.which(tool)]
            if lacks:
                skip, wrong = "%s is missing" % lacks[0], None
            elif not broken:
                try:
                    name = self.perform(step)
                except (Wrong, AssertionError, OSError, subprocess.SubprocessError) as error:
                    wrong = str(error) or repr(error)
                    if not step.document:
                        broken = "before it, %r failed: %s" % (step.first, wrong)
            if step.document:
                yield "%s:%s" % (step.document, name), wrong, skip
        for process in (self.machine, self.qemu):
            if process:
                process.stop()
        if broken and not any(step.document for step in self.scene.steps):
            raise Wrong(broken)

    def perform(self, step):
        text = step.first
        if step.document:
            snippet = next(s for s in self.snippets if s.document == step.document
                           and s.begins(step.first))
            text = snippet.text
        for word, value in step.words.items():
            text = re.sub(r"\b%s\b" % word, value, text)
        self.folder = step.folder or self.scene.folder
        getattr(self, "do_" + step.kind)(step, text)
        if step.until:
            self.until(step.until)
        return "%d: %s" % (snippet.line, snippet.first) if step.document else text

    # Host

    def shell(self, command, status=0, background=False):
        """Run a command to its end, unless in the background; its output is in self.printed."""
        self.logs += 1
        self.log = os.path.join(self.directory, "log%d" % self.logs)
        with open(self.log, "wb") as log:
            child = subprocess.Popen(["sh", "-c", command], cwd=self.folder, stdout=log,
                                     stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        if background:
            return
        try:
            result = child.wait(self.scene.seconds * support.SCALE)
        except subprocess.TimeoutExpired:
            child.kill()
            result = "none: it did not end"
        with open(self.log, encoding="utf-8", errors="replace") as log:
            self.printed = log.read()
        if result != status:
            raise Wrong("%s\nexit status %s instead of %s; it printed\n%s"
                        % (command, result, status, self.printed[-1500:]))

    def until(self, condition):
        """Try a command until it succeeds; each try costs a process, and that is pause enough."""
        limit = support.Deadline(WAIT)
        while True:
            result = subprocess.run(["sh", "-c", condition], cwd=self.folder,
                                    capture_output=True, text=True)
            if result.returncode == 0:
                return
            if limit.expired():
                with open(self.log, encoding="utf-8", errors="replace") as log:
                    raise Wrong("this never came true: %s\n%s%s%s" % (
                        condition, result.stdout, result.stderr, log.read()[-1500:]))

    def do_do(self, step, text):
        self.shell(text, background=step.background)

    def do_run(self, step, text):
        for command, expected in split(text):
            self.shell(command, step.status, step.background)
            if expected.strip():
                compare(self.printed, expected, step.similar)

    def do_printed(self, step, text):
        compare(self.printed, text, step.similar)

    def do_file(self, step, text):
        """The block becomes a file, and a command says whether it is right."""
        path = os.path.join(self.folder, step.path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(step.before + text + "\n" + step.after)
        if step.command:
            self.shell(step.command)

    def do_session(self, step, text):
        """A program at a terminal: lines with its prompt are typed, the others must come."""
        lines = text.split("\n")
        main, terminal = pty.openpty()
        child = subprocess.Popen(["sh", "-c", lines[0][2:]], cwd=self.folder, stdin=terminal,
                                 stdout=terminal, stderr=terminal, start_new_session=True)
        os.close(terminal)
        stream = support.Stream(os.fdopen(main, "r+b", buffering=0), lines[0])
        prompt, typed = "ivshmem> ", 0
        for line in lines[1:]:
            if line.startswith(prompt):
                stream.wait_until(lambda _: prompt.encode() in stream.data[typed:], what=prompt)
                typed = len(stream.data)
                os.write(main, line[len(prompt):].encode() + b"\n")
            else:
                stream.wait_for(expression(line, False).replace(r"\ ", SPACE))
        if child.wait(WAIT):
            raise Wrong("exit status %d" % child.returncode)

    # Monitor

    def do_monitored(self, step, text):
        """Our QEMU with a monitor for the steps to come; text is its arguments."""
        self.qemu = support.Qemu(self.directory, *text.split())

    def do_monitor(self, step, text):
        """What the monitor shows: (qemu) commands with what they print."""
        for part in re.split(r"^\(qemu\) ", text, flags=re.M)[1:]:
            command, _, expected = part.partition("\n")
            answer = self.qemu.qmp.hmp(command)
            compare(answer, expected, step.similar)

    def do_traced(self, step, text):
        """Each line is in what QEMU traced, numbers aside."""
        for line in text.split("\n"):
            self.qemu.err.wait_until(re.compile(expression(line, True).encode()).search, what=line)

    def do_refused(self, step, text):
        """The monitor's command in step.path fails with this message."""
        with tempfile.NamedTemporaryFile(dir=self.directory) as target:
            answer = self.qemu.qmp.hmp("%s file:%s" % (step.path, target.name))
        compare(" ".join(answer.split()), "Error: " + " ".join(text.split()))

    def do_event(self, step, text):
        self.qemu.qmp.wait_event(text)

    def do_qmp(self, step, text):
        """A QMP transcript: what follows -> is sent, and what follows <- must come, in time."""
        limit = support.Deadline(WAIT)
        for sent, expected in re.findall(r"^-> (.*)\n<- (.*(?:\n   .*)*)", text, re.M):
            answer = None
            while answer != json.loads(expected):
                if limit.expired():
                    raise Wrong("%s gave %s" % (sent, json.dumps(answer)))
                answer = {"return": self.qemu.qmp.execute(json.loads(sent))}

    # Guest

    def do_vm(self, step, text):
        self.machine = vm.LinuxVM(self.directory, *text.split()).ready()

    def do_guest(self, step, text):
        for command, expected in split(text):
            printed = self.machine.check(command)
            if expected.strip():
                compare(printed, expected, step.similar)

    def do_guest_do(self, step, text):
        self.machine.check(text)
