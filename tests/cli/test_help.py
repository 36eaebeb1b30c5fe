#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Program, --help and manual agree: commands, options, keys, defaults, states; examples are accepted.

Usage: test_help.py COLO
"""
import os
import re
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
COLO = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else os.path.join(ROOT, "build", "colo")


def read(*path):
    with open(os.path.join(ROOT, *path), encoding="utf-8") as f:
        return f.read()


def run(*words):
    return subprocess.run([COLO, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=10, check=False)


def plain(markdown):
    return markdown.replace("\\", "")


def sections(page):
    """{heading: text} of a manual page."""
    parts = re.split(r"^# (.*)$", plain(read("docs", page)), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def entries(text):
    """{term: description}; a list of terms before a description shares it."""
    found = {}
    for terms, description in re.findall(r"^(\*\*.*)\n:(?=   )((?:.*\n?)(?:(?:    .*)?\n)*)", text, flags=re.M):
        for term in re.findall(r"\*\*([^*]+)\*\*", terms):
            found[term] = description
    return found


def code_commands():
    table = re.search(r"commands\[\] = \{(.*?)\n\};", read("cli", "colo.c"), re.S).group(1)
    return set(re.findall(r'\{ "([\w-]+)",', table))


def code_options():
    return set(re.findall(r'\{ "([\w-]+)", (?:required|no)_argument', read("cli", "colo.c")))


def code_keys():
    """{(section, key): default or None}"""
    rows = re.findall(r'\{ "([\w -]+)", "([\w-]+)", KEY_\w+, (?:FIELD|HOST|NIC|DISK)\([\w\[\].]+\), [^,]+, [^,]+, '
                      r'(NULL|"[^"]*") \}', read("daemon", "config.c"))
    return {(s, k): None if d == "NULL" else d[1:-1] for s, k, d in rows}


class Help(unittest.TestCase):
    def setUp(self):
        r = run("--help")
        self.assertEqual((r.returncode, r.stderr), (0, ""))
        self.help = r.stdout

    def listed(self, heading, pattern):
        part = re.search(rf"^{heading}:\n(.*?)(?:\n\n|\Z)", self.help, re.S | re.M).group(1)
        return set(re.findall(pattern, part, re.M))

    def test_commands(self):
        self.assertTrue(code_commands())
        self.assertEqual(self.listed("Commands", r"^  ([\w-]+)"), code_commands())
        self.assertEqual(set(entries(sections("colo.1.md")["COMMANDS"])), code_commands())

    def test_options(self):
        self.assertTrue(code_options())
        self.assertEqual(self.listed("Options", r"^  --([\w-]+)"), code_options())
        self.assertEqual({o.lstrip("-") for o in entries(sections("colo.1.md")["OPTIONS"])}, code_options())

    def test_version(self):
        version = re.search(r"version: '([^']+)'", read("meson.build")).group(1)
        self.assertEqual(run("--version").stdout, f"colo {version}\n")

    def test_help_fits_a_terminal(self):
        for line in self.help.splitlines():
            self.assertLessEqual(len(line), 100)


class Manual(unittest.TestCase):
    def test_keys(self):
        keys = code_keys()
        rows = len(re.findall(r'^\t\{ "[\w -]+", "[\w-]+", KEY_', read("daemon", "config.c"), re.M))
        self.assertEqual(len(keys), rows) # the table is read as it is meant
        described = {}
        for heading, text in sections("colo.5.md").items():
            if heading.startswith("["):
                section = heading.strip("[]").replace("host NAME", "host")
                described.update({(section, key): d for key, d in entries(text).items()})
        self.assertEqual(set(described), set(keys))
        for key, default in keys.items():
            if default is None:
                self.assertIn("Required", described[key], key)
            elif default:
                self.assertIn(f"**{default}**", described[key], key)

    def test_devices(self):
        """What may be had is in the first table of DEVICES, and the reasons of the refusals have their words in it."""
        source = read("daemon", "devices.c")
        allowed = re.findall(r'"([\w-]+)"', re.search(r"allowed\[\] = \{(.*?)\};", source, re.S).group(1))
        may, cannot = sections("colo.5.md")["DEVICES"].split("What cannot be protected")
        self.assertTrue(allowed)
        for name in allowed:
            self.assertIn(name, may)
        families = re.findall(r'\{ "\*?-?([\w-]+)', re.search(r"refused\[\] = \{(.*?)\n\};", source, re.S).group(1))
        self.assertGreater(len(families), 50)
        for word in "balloon", "virtio-mem", "nvdimm", "pmem", "VFIO", "ivshmem", "vhost", "9p", "QXL", "virtio-gpu", \
                "virtio-serial", "TPM", "IOMMU":
            self.assertIn(word, cannot)
            self.assertTrue(any(word.lower() in f.lower() for f in families), word)

    def test_states(self):
        states = set(re.findall(r'X\(\w+, "([\w-]+)"\)', read("core", "core.h").split("CORE_CAUSES")[0]))
        self.assertTrue(states)
        self.assertEqual(set(entries(sections("colo.1.md")["STATES"])), states)

    def test_causes(self):
        causes = re.search(r"#define CORE_CAUSES(.*?)enum", read("core", "core.h"), re.S).group(1)
        for cause in re.findall(r'"([\w-]+)"', causes):
            self.assertRegex(sections("colo.1.md")["STATUS"], rf"\b{cause}\b")

    def test_kinds(self):
        kinds = re.search(r"#define CM_KINDS(.*?)enum", read("net", "net.h"), re.S).group(1)
        described = set(re.findall(r"[\w-]+", " ".join(re.findall(r"^([\w, -]+)\n:   ", plain(
            sections("colo.1.md")["DIFFERENCES"]), re.M))))
        self.assertEqual(described, set(re.findall(r'X\(\w+, "([\w-]+)"\)', kinds)))

    def test_differences_keys(self):
        """Every key of `colo explain --json` is in its section of the manual."""
        source = read("daemon", "explain.c").split("/* --- reports --- */")[1].split("/* --- the file --- */")[0]
        keys = set(re.findall(r'"([a-z_]+)"', source)) - {"ok", "error", "last", "checkpoint", "colo"}
        self.assertIn("offset_in", keys)
        text = set(re.findall(r"[\w-]+", sections("colo.1.md")["DIFFERENCES"]))
        self.assertEqual(keys - text, set())

    def check_config(self, text):
        hosts = re.findall(r"^\s*\[host ([^\]]+)\]", text, re.M)
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as f, tempfile.TemporaryDirectory() as keys:
            with open(os.open(os.path.join(keys, "keys.psk"), os.O_WRONLY | os.O_CREAT, 0o600), "w",
                      encoding="utf-8") as k:
                k.write("colo:" + 32 * "5a" + "\n")
            f.write(re.sub(r"^    ", "", text, flags=re.M).replace("mode = psk", f"mode = psk\ndir = {keys}"))
            f.flush()
            for host in hosts:
                r = run("check", "--node", host, f.name)
                self.assertEqual((r.returncode, r.stderr), (0, ""))
        self.assertEqual(len(hosts), 2)

    def test_examples(self):
        self.check_config(sections("colo.5.md")["EXAMPLE"])
        self.check_config(read("docs", "config-example.ini"))


class Usage(unittest.TestCase):
    def refused(self, words, said):
        r = run(*words)
        self.assertEqual((r.returncode, r.stdout), (2, ""), words)
        self.assertIn(said, r.stderr)

    def test_wrong_words(self):
        self.refused([], "Usage: colo COMMAND")
        self.refused(["status"], "Usage: colo COMMAND")
        self.refused(["status", "a.conf", "b.conf"], "Usage: colo COMMAND")
        self.refused(["fly", "a.conf"], "unknown command 'fly'")
        self.refused(["status", "--fly", "a.conf"], "unrecognized option '--fly'")
        self.refused(["status", "a.conf", "--node"], "option '--node' requires an argument")

    def test_no_file(self):
        r = run("check", "/nonexistent/web.conf")
        self.assertEqual((r.returncode, r.stdout), (1, ""))
        self.assertEqual(r.stderr, "colo: /nonexistent/web.conf: No such file or directory\n")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
