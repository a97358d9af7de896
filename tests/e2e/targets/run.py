#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Run the end-to-end tests on other processors' machines: run.py [-x] [-l] [NAME...], as the one in
the folder above does.
"""
import importlib.util
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))

SPEC = importlib.util.spec_from_file_location(
    "e2e_run", os.path.join(os.path.dirname(HERE), "run.py"))
E2E = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(E2E)

if __name__ == "__main__":
    sys.exit(E2E.main(HERE))
