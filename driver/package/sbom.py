"""sbom.py BUILD NAME VERSION DIRECTORY: what of other projects is in the programs of a release build.

Writes sbom.spdx.json (SPDX 2.3), copyright and licences/SOURCE_PACKAGE to DIRECTORY. Facts, not a list of ours: the
linker's own record of its inputs, the compiler's of its headers, and dpkg's of whose files these are.
"""
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

PROGRAMS = ("driver/nomad-driver-jenkins-agent", "driver/supervisor/supervisor", "driver/tools/tools",
            "driver/metrics/exporter")
OURS = re.compile(r"^(driver|cgroups|proto)/")
# Interfaces of the kernel and of libc, of which nothing gets into a program.
INTERFACES = {"linux-libc-dev"}


def linked_files(build):
    """Files of the system that the linker read: {path}."""
    files = set()
    for program in PROGRAMS:
        text = (build / f"{program}.link.d").read_text().replace("\\\n", " ")
        files |= {os.path.normpath(word) for word in text.split(":", 1)[1].split("\n\n")[0].split()
                  if word.startswith(("/usr/", "/lib"))}
    return files


def included_headers(build):
    """Headers of the system that our sources include, also through others: {path}."""
    listing = subprocess.run(["ninja", "-C", str(build), "-t", "deps"], capture_output=True, text=True, check=True)
    headers, ours = set(), False
    for line in listing.stdout.splitlines():
        if line and not line.startswith(" "):
            ours = bool(OURS.match(line)) or "CMakeFiles/" not in line
        elif ours and line.strip().startswith("/usr/include/"):
            headers.add(os.path.normpath(line.strip()))
    return headers


def names(path):
    """What dpkg may call a file: as it is, without links, and as before /usr was merged."""
    real = os.path.realpath(path)
    return [path, real, path.removeprefix("/usr"), real.removeprefix("/usr")]


def owners(paths):
    """{path: Debian package}, None for what no package has."""
    found = {}
    for variant in range(4):
        wanted = {names(path)[variant]: path for path in paths if path not in found}
        for begin in range(0, len(wanted), 500):
            listing = subprocess.run(["dpkg", "-S", *list(wanted)[begin:begin + 500]], capture_output=True, text=True,
                                     check=False)
            for line in listing.stdout.splitlines():
                package, _, name = line.partition(": ")
                if name in wanted:
                    found[wanted[name]] = package.split(",")[0].partition(":")[0]
    return {path: found.get(path) for path in paths}


def facts(package):
    """(version, source package, its version)."""
    shown = subprocess.run(["dpkg-query", "-W", "-f", "${Version}\t${source:Package}\t${source:Version}\n", package],
                           capture_output=True, text=True, check=True)
    return shown.stdout.splitlines()[0].split("\t")


def is_static(path):
    return path.endswith((".a", ".o"))


def components(build):
    """{package: "STATIC_LINK" or "DYNAMIC_LINK"}: what is in the programs, and what they need beside them."""
    linked = owners(linked_files(build))
    nobodys = sorted(path for path, package in linked.items() if package is None)
    if nobodys:
        sys.exit(f"sbom.py: no Debian package has {', '.join(nobodys)}")
    relations = {}
    for path, package in linked.items():
        if is_static(path) or package not in relations:
            relations[package] = "STATIC_LINK" if is_static(path) else "DYNAMIC_LINK"
    for package in owners(included_headers(build)).values():
        if package and package not in INTERFACES:
            relations.setdefault(package, "STATIC_LINK")  # headers only: their code is in ours
    return relations


def document(name, version, program, relations):
    digest = hashlib.sha256(program.read_bytes()).hexdigest()
    created = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    packages = [{"SPDXID": "SPDXRef-Package", "name": name, "versionInfo": version, "licenseDeclared": "Apache-2.0",
                 "licenseConcluded": "Apache-2.0", "copyrightText": "NOASSERTION", "downloadLocation": "NOASSERTION",
                 "filesAnalyzed": False, "checksums": [{"algorithm": "SHA256", "checksumValue": digest}]}]
    links = [{"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES",
              "relatedSpdxElement": "SPDXRef-Package"}]
    for package, relation in sorted(relations.items()):
        installed, source, source_version = facts(package)
        identity = "SPDXRef-" + re.sub(r"[^A-Za-z0-9.-]", "-", package)
        packages.append({"SPDXID": identity, "name": package, "versionInfo": installed,
                         "sourceInfo": f"built from Debian's source package {source} {source_version}",
                         "licenseDeclared": "NOASSERTION", "licenseConcluded": "NOASSERTION",
                         "licenseComments": f"licences/{source}", "copyrightText": "NOASSERTION",
                         "downloadLocation": "NOASSERTION", "filesAnalyzed": False,
                         "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl",
                                           "referenceLocator": f"pkg:deb/debian/{package.replace('+', '%2B')}@"
                                                               f"{installed.replace('+', '%2B')}?arch=amd64&distro=debian-12"}]})
        links.append({"spdxElementId": "SPDXRef-Package", "relationshipType": relation,
                      "relatedSpdxElement": identity})
    return {"spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": f"{name}-{version}",
            "documentNamespace": f"https://spdx.org/spdxdocs/{name}-{version}-{digest[:32]}",
            "creationInfo": {"created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(created)),
                             "creators": ["Tool: sbom.py"]},
            "packages": packages, "relationships": links}


def main():
    build, name, version, directory = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3], pathlib.Path(sys.argv[4])
    relations = components(build)
    (directory / "sbom.spdx.json").write_text(
        json.dumps(document(name, version, build / PROGRAMS[0], relations), indent=1) + "\n")
    licences = directory / "licences"
    licences.mkdir(exist_ok=True)
    static = sorted(package for package, relation in relations.items() if relation == "STATIC_LINK")
    for package in static:
        shutil.copyfile(f"/usr/share/doc/{package}/copyright", licences / facts(package)[1])
    (directory / "copyright").write_text(
        f"{name} {version} is under the Apache License, Version 2.0: LICENSE in this directory, on Debian also\n"
        "/usr/share/common-licenses/Apache-2.0.\n\n"
        "Code of these Debian packages is linked into it; their copyrights and licences are in licences/, their\n"
        f"versions in sbom.spdx.json:\n\n  {chr(10).join('  ' + each for each in static).strip()}\n")


main()
