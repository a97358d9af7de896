# SPDX-License-Identifier: GPL-2.0-or-later
"""What a document tells its reader to type: literal blocks, and commands within sentences.

Reads reStructuredText and Markdown as far as this project uses them.  Not responsible for
what becomes of a block; that is in scenes.py.
"""
import os
import re

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
README = "README.md"
MANUAL = "docs/system/devices/ivshmem.rst"
SPEC = "docs/specs/ivshmem-spec.rst"
PERFORMANCE = "docs/performance.rst"
TOOLS = {name: "docs/tools/ivshmem-%s.rst" % name for name in ("server", "client", "guest")}
DOCUMENTS = [README, MANUAL, SPEC, PERFORMANCE, *TOOLS.values()]

# Names that begin a command; what else is between `` `` is a name, a key or a value.
PROGRAMS = (r"(\./run|scripts/|tests/|ivshmem-(server|client|guest)|qemu-system-|kill|meson|ninja"
            r"|virsh|systemctl|ulimit|sysctl|apt(-get)?|mount|chgrp|usermod|lspci|setpci|dmesg"
            r"|numactl|aa-status|journalctl)\S*")
COMMAND = re.compile(r"^%s( |$)" % PROGRAMS)
BARE = re.compile(r"^\S+$")         # a program's name alone is no command


def read(name):
    with open(os.path.join(TOP, name), encoding="utf-8") as file:
        return file.read()


class Snippet:
    """A block or an inline command: document, line, text, and for blocks the language."""

    def __init__(self, document, line, text, language=None, inline=False):
        self.document, self.line = document, line
        self.text, self.language, self.inline = text, language, inline

    @property
    def first(self):
        return self.text.split("\n", 1)[0]

    def begins(self, words):
        return self.text.lstrip().startswith(words)

    def __str__(self):
        return "%s:%d: %s" % (self.document, self.line, self.first.strip()[:70])


def _indented(lines, start, above):
    """The block of lines from start on that are indented deeper than above: (end, text)."""
    end = start
    while end < len(lines) and (not lines[end].strip() or
                                len(lines[end]) - len(lines[end].lstrip()) > above):
        end += 1
    body = lines[start:end]
    while body and not body[-1].strip():
        body.pop()
    margin = min((len(line) - len(line.lstrip()) for line in body if line.strip()), default=0)
    return end, "\n".join(line[margin:] for line in body)


def rst_blocks(name):
    """Literal blocks of a document, in order."""
    lines, number = read(name).split("\n"), 0
    while number < len(lines):
        line = lines[number]
        directive = re.match(r"\s*\.\. (code-block|literalinclude)::\s*(\S*)", line)
        literal = re.search(r"::$", line) and not re.match(r"\s*\.\. \S", line)
        number += 1
        if not directive and not literal:
            continue
        above = len(line) - len(line.lstrip())
        while number < len(lines) and not lines[number].strip():
            number += 1
        begin = number
        number, text = _indented(lines, number, above)
        language = directive.group(2) or directive.group(1) if directive else None
        yield Snippet(name, begin + 1, text, language)


def markdown_blocks(name):
    """Indented and fenced blocks of a document, in order."""
    lines, number, fence = read(name).split("\n"), 0, None
    while number < len(lines):
        line = lines[number]
        fence = re.match(r"```(\w*)$", line)
        if fence:
            end = lines.index("```", number + 1)
            yield Snippet(name, number + 2, "\n".join(lines[number + 1:end]), fence.group(1))
            number = end + 1
        elif line.startswith("    ") and not lines[number - 1].strip():
            end, text = _indented(lines, number, 0)
            yield Snippet(name, number + 1, text)
            number = end
        else:
            number += 1


def inline_commands(name):
    """Commands within sentences; a line break in one is a space."""
    text = read(name)
    quote = r"``([^`]+)``" if name.endswith(".rst") else r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)"
    for match in re.finditer(quote, text):
        command = re.sub(r"\s*\n\s*", " ", match.group(1))
        if COMMAND.match(command) and (not BARE.match(command) or command.startswith("./run")):
            yield Snippet(name, text.count("\n", 0, match.start()) + 1, command, inline=True)


def snippets():
    for name in DOCUMENTS:
        yield from (rst_blocks if name.endswith(".rst") else markdown_blocks)(name)
        yield from inline_commands(name)


if __name__ == "__main__":
    for snippet in snippets():
        print(snippet)
