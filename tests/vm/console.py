"""What the machine said, judged. Pure."""
import dataclasses
import re

RUN = re.compile(r"^\[ RUN      \] (\S+)")
OVER = re.compile(r"^\[(?:       OK |  FAILED  |  SKIPPED )\] (\S+?),? .*\(\d+ ms\)")
FAILED = re.compile(r"^\[  FAILED  \] (\S+?),? .*\(\d+ ms\)")
SKIPPED = re.compile(r"^\[  SKIPPED \] \S+ \(\d+ ms\)")
TIMED_OUT = ("124", "137")  # timeout(1)


@dataclasses.dataclass
class Program:
    path: str
    ran: int = 0
    skipped: int = 0
    failed: list = dataclasses.field(default_factory=list)
    running: str = ""   # the case that has begun and not ended
    status: str = ""    # empty: it did not end

    @property
    def name(self):
        return self.path.rsplit("/", 1)[-1]


def read(text):
    """Returns (the programs that were begun, whether the end was reached)."""
    programs = []
    for line in text.splitlines():
        if line.startswith("== run "):
            programs.append(Program(line[len("== run "):]))
        elif line == "== end":
            return programs, True
        elif not programs:
            continue
        elif line.startswith("== status "):
            programs[-1].status = line[len("== status "):]
        elif match := RUN.match(line):
            programs[-1].ran += 1
            programs[-1].running = match[1]
        elif OVER.match(line):
            programs[-1].running = ""
            programs[-1].skipped += bool(SKIPPED.match(line))
            if match := FAILED.match(line):
                programs[-1].failed.append(match[1])
    return programs, False


def complaints_about(program):
    complaints = [f"{program.name}: {case} failed" for case in program.failed]
    if program.status in TIMED_OUT:
        complaints.append(f"{program.name}: took too long, in {program.running or 'no test'}")
    elif program.status == "":
        complaints.append(f"{program.name}: did not end, in {program.running or 'no test'}")
    elif program.status != "0" and not program.failed:
        complaints.append(f"{program.name}: ended with status {program.status}, in {program.running or 'no test'}")
    if program.ran == 0:
        complaints.append(f"{program.name}: ran no test")
    return complaints


def complaints(expected, text, kernel_log):
    """One line for each thing that is wrong; `expected` are the programs' paths."""
    programs, ended = read(text)
    found = [complaint for program in programs for complaint in complaints_about(program)]
    begun = {program.path for program in programs}
    found += [f"{path.rsplit('/', 1)[-1]}: was not run" for path in expected if path not in begun]
    found += [line.strip() for line in kernel_log.splitlines() if "Kernel panic" in line or "Oops:" in line]
    if not ended:
        found.append("the machine did not reach its end")
    if not expected:
        found.append("there is no program to run")
    return found


def counts(text):
    """(tests, how many of them skipped)"""
    programs, _ = read(text)
    return sum(program.ran for program in programs), sum(program.skipped for program in programs)
