#!/usr/bin/env python3
"""scripts/check_layers and scripts/count_tests refuse what they are for."""
import importlib.machinery
import importlib.util
import pathlib
import tempfile
import unittest

SCRIPTS = pathlib.Path(__file__).resolve().parents[2] / "scripts"


def load(name):
    loader = importlib.machinery.SourceFileLoader(name, str(SCRIPTS / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


class CheckLayersTest(unittest.TestCase):
    def complaints(self, **files):
        with tempfile.TemporaryDirectory() as directory:
            root = pathlib.Path(directory)
            for name, text in files.items():
                path = root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            return list(load("check_layers").complaints(root))

    def test_downwards_and_inside_is_fine(self):
        self.assertEqual(self.complaints(**{
            "driver/task/plan.cc": '#include "driver/task/plan.h"\n#include "cgroups/limits.h"\n#include <vector>\n',
            "driver/base/file.cc": '#include "driver/base/file.h"\n#include "absl/strings/str_cat.h"\n',
            "driver/main.cc": '#include "driver/service/driver.h"\n'}), [])

    def test_upwards_is_refused(self):
        found = self.complaints(**{"driver/jvm/java.cc": '\n#include "driver/task/plan.h"\n'})
        self.assertEqual(len(found), 1)
        self.assertIn("driver/jvm/java.cc:2:", found[0])

    def test_sideways_is_refused(self):
        self.assertEqual(len(self.complaints(**{"driver/agent/exit.cc": '#include "driver/config/options.h"\n'})), 1)

    def test_cgroups_stand_alone(self):
        self.assertEqual(len(self.complaints(**{"cgroups/v1.cc": '#include "proto/supervisor.pb.h"\n'})), 1)

    def test_unknown_folder_is_refused(self):
        self.assertEqual(len(self.complaints(**{"driver/util/x.cc": ""})), 1)

    def test_include_without_folder_is_refused(self):
        self.assertEqual(len(self.complaints(**{"driver/task/plan.cc": '#include "plan.h"\n'})), 1)


class CountTestsTest(unittest.TestCase):
    def test_counts_cases_of_every_kind(self):
        log = """1/3 Testing: a
[ RUN      ] A.One
[       OK ] A.One (0 ms)
[ RUN      ] A.Two
x.cc:3: Skipped
needs root
[  SKIPPED ] A.Two (0 ms)
2/3 Testing: b
=== RUN   TestX
    host_test.go:1: needs root
--- SKIP: TestX (0.00s)
=== RUN   TestY
--- PASS: TestY (0.00s)
3/3 Testing: c
test_one (test_x.X.test_one) ... ok
test_two (test_x.X.test_two) ... skipped 'needs java'
4/4 Testing: script without cases
fine
"""
        ran, skipped = load("count_tests").count(log.splitlines())
        self.assertEqual(ran, 7)
        self.assertEqual(skipped, [("a", "A.Two", "needs root"), ("b", "TestX", "host_test.go:1: needs root"),
                                   ("c", "test_two", "needs java")])

    def test_a_skip_has_to_be_allowed(self):
        counting = load("count_tests")
        allowed = counting.patterns("# why\na: A.*  # these\n\nc: test_two\n")
        self.assertEqual(allowed, ["a: A.*", "c: test_two"])
        skipped = [("a", "A.Two", "x"), ("c", "test_two", "x"), ("c", "test_three", "x"), ("b", "A.Two", "x")]
        self.assertEqual(counting.not_allowed(skipped, allowed), ["c: test_three", "b: A.Two"])

    def test_what_may_be_skipped_is_in_order(self):
        tests = SCRIPTS.parent / "tests"
        allowed = load("count_tests").patterns((tests / "skips").read_text())
        self.assertTrue(all(": " in pattern for pattern in allowed), allowed)


if __name__ == "__main__":
    unittest.main(verbosity=2)
