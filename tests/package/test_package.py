#!/usr/bin/env python3
"""The Debian package: what is in it, and what it says of itself."""
import json
import os
import re
import subprocess
import unittest

from packing import BUILD, DRIVER, NAME, ROOT, output, pack

DOC = f"usr/share/doc/{NAME}"


def setUpModule():
    global package, unpacked
    _, package, unpacked = pack()


class ContentsTest(unittest.TestCase):
    def test_version_comes_from_one_place(self):
        version = re.search(r"^project\(.* VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text(), re.M)[1]
        self.assertEqual(output("dpkg-deb", "-f", package, "Version").strip(), version)
        self.assertEqual(output(unpacked / "opt/nomad/plugins" / NAME, "version"), f"{NAME} {version}\n")
        self.assertIn(f'"{version}"', output(DRIVER, "describe", "man").splitlines()[0])

    def test_shared_libraries_of_what_the_plugin_carries_are_depended_on(self):
        depends = output("dpkg-deb", "-f", package, "Depends")
        for library in ("libcurl4", "libarchive13", "libc6"):
            self.assertRegex(depends, rf"\b{library}\b")
        recommends = output("dpkg-deb", "-f", package, "Recommends")
        self.assertIn("libisal2", recommends)  # found at run time: dlopen
        self.assertIn("libprometheus-cpp-pull1.0", recommends)  # of the exporter

    def test_examples_and_licence_are_there(self):
        self.assertEqual({path.name for path in (unpacked / DOC / "examples").iterdir()},
                         {path.name for path in (ROOT / "examples").iterdir()})
        self.assertEqual((unpacked / DOC / "LICENSE").read_text(), (ROOT / "LICENSE").read_text())
        self.assertEqual(os.readlink(unpacked / "usr/bin" / NAME), f"/opt/nomad/plugins/{NAME}")

    def test_what_is_linked_in_is_listed_with_its_version_and_licence(self):
        bill = json.loads((unpacked / DOC / "sbom.spdx.json").read_text())
        packages = {each["SPDXID"]: each for each in bill["packages"]}
        static = {packages[link["relatedSpdxElement"]]["name"] for link in bill["relationships"]
                  if link["relationshipType"] == "STATIC_LINK"}
        # An archive, a part of the compiler, libc of the static supervisor, headers only.
        self.assertLessEqual({"libgrpc++-dev", "libabsl-dev", "libstdc++-12-dev", "libc6-dev", "libcli11-dev"}, static)
        self.assertIn("prometheus-cpp-dev", {each["name"] for each in bill["packages"]})  # of the exporter
        self.assertTrue(static.isdisjoint({"libgtest-dev", "libgmock-dev", "libcurl4-openssl-dev", "linux-libc-dev"}))
        copyright = (unpacked / DOC / "copyright").read_text()
        for each in bill["packages"][1:]:
            installed = output("dpkg-query", "-W", "-f", "${Version}\n", each["name"]).splitlines()[0]
            self.assertEqual(each["versionInfo"], installed)
            if each["name"] in static:
                self.assertIn(f"  {each['name']}\n", copyright)
                self.assertGreater((unpacked / DOC / each["licenseComments"]).stat().st_size, 200)

    def test_packing_twice_gives_the_same_bytes(self):
        before = package.read_bytes()
        output(ROOT / "scripts/package", os.path.relpath(BUILD), umask=0o077,
               env={**os.environ, "TZ": "Asia/Tokyo", "LC_ALL": "C"})
        self.assertEqual(package.read_bytes(), before)

    def test_no_program_knows_where_it_was_built(self):
        # What test_reproducible.py shows by a second build, the likeliest reason for a difference.
        programs = [BUILD / "driver" / NAME, *(BUILD / "driver/programs").iterdir()]
        self.assertEqual(len(programs), 4)
        for program in programs:
            self.assertNotIn(str(ROOT).encode(), program.read_bytes(), program.name)


class CommandLineTest(unittest.TestCase):
    """Completion and manual page beside what `--help` says, which is another way through the definitions."""

    @classmethod
    def setUpClass(cls):
        cls.options = {}
        cls.walk(())

    @classmethod
    def walk(cls, words):
        text = output(DRIVER, *words, "--help")
        cls.options[words] = set(re.findall(r"^  (?:-\w,)?(--[\w-]+)", text, re.M))
        for command in re.findall(r"^  (\w[\w-]*)  ", text.partition("Subcommands:")[2], re.M):
            cls.walk((*words, command))

    def complete(self, *words):
        """What bash offers behind these words."""
        script = (f'source "$1"; shift; COMP_WORDS=({NAME} "$@"); COMP_CWORD=$#; _{NAME.replace("-", "_")}; '
                  'printf "%s\\n" "${COMPREPLY[@]}"')
        completion = unpacked / "usr/share/bash-completion/completions" / NAME
        return set(output("bash", "-c", script, "bash", completion, *words).split())

    def test_completion_offers_what_the_help_says(self):
        self.assertGreater(len(self.options), 8)
        self.assertIn(("agents", "dump"), self.options)
        for words, options in self.options.items():
            with self.subTest(" ".join(words)):
                self.assertEqual(self.complete(*words, "--"), options)
        self.assertLessEqual({"agents", "explain", "images", "version"}, self.complete(""))
        self.assertNotIn("describe", self.complete(""))
        self.assertEqual(self.complete("images", "pu"), {"pull"})
        self.assertLessEqual({"--watch"}, self.complete("explain", "some-job", "--w"))

    def test_what_is_typed_another_way_is_understood_or_named(self):
        self.assertEqual(output(DRIVER, "--version"), output(DRIVER, "version"))
        store = unpacked.parent / "store"
        self.assertEqual(output(DRIVER, "images", "ls", "--store", store), output(DRIVER, "images", "--store", store, "ls"))
        for words in "bogus", "images bogus":
            run = subprocess.run([DRIVER, *words.split()], text=True, capture_output=True, check=False)
            self.assertEqual(run.returncode, 1)
            self.assertIn(f"there is no command '{words}'", run.stderr)

    def test_what_cannot_be_written_is_an_error(self):
        store = unpacked.parent / "no-store"
        for words in "version", "--help", f"images ls --store {store}", "doctor --no-trial":
            for where in ">/dev/full", ">&-":
                with self.subTest(f"{words} {where}"):
                    run = subprocess.run(["sh", "-c", f'exec "$0" {words} {where}', DRIVER], text=True, stderr=subprocess.PIPE,
                                         check=False)
                    self.assertEqual(run.returncode, 1)
                    self.assertIn("the output could not be written", run.stderr)

    def test_manual_page_has_each_command_and_option(self):
        page = unpacked / "usr/share/man/man8" / f"{NAME}.8.gz"
        run = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", page], text=True, capture_output=True,
                             env={**os.environ, "MANWIDTH": "100", "LC_ALL": "C.UTF-8"}, check=True)
        self.assertEqual(run.stderr, "")
        for words, options in self.options.items():
            for text in {" ".join(words)} | (options - {"--help"}):
                self.assertIn(text, run.stdout.replace("‐", "-"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
