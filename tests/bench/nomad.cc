// A real Nomad agent with our driver beside its own. nomad.py, which has the end-to-end tests'
// Nomad at hand, measures and judges; here its lines become figures of the report.
#include <stdio.h>

#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "driver/base/status.h"
#include "tests/bench/scenarios.h"

namespace jenkins_agent::bench {
namespace {

absl::StatusOr<Figure> Parse(const std::string& line) {
  const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("figure") || !json.contains("ours")) {
    return absl::InternalError(absl::StrCat("not a figure: ", line));
  }
  Figure figure{json["figure"], json.value("conditions", ""), json["ours"]};
  figure.peer = json.value("peer", "");
  if (json.contains("theirs")) figure.theirs = json["theirs"].get<double>();
  figure.target = json.value("target", "");
  if (json.contains("met")) figure.met = json["met"].get<bool>();
  return figure;
}

}  // namespace

absl::Status BenchNomad(const NomadOptions& options, Report& report) {
  ::setenv("DRIVER_BINARY", DRIVER_FILE, 1);
  ::setenv("PROBE_FILE", PROBE_FILE, 1);
  // popen: a Ctrl-C at the terminal reaches the script too, which then removes its jobs and
  // directories.
  const std::string command = absl::StrCat("exec python3 '", NOMAD_SCRIPT, "' --runs ",
                                           options.runs, " --rounds ", options.rounds);
  FILE* const script = ::popen(command.c_str(), "re");
  if (script == nullptr) return ErrnoStatus("nomad.py");
  absl::Status status;
  char* line = nullptr;
  size_t capacity = 0;
  while (::getline(&line, &capacity, script) > 0) {
    absl::StatusOr<Figure> figure = Parse(line);
    status.Update(figure.status());
    if (figure.ok()) report.Add(*std::move(figure));
  }
  ::free(line);
  if (::pclose(script) != 0) status.Update(absl::InternalError("nomad.py failed (see above)"));
  return status;
}

}  // namespace jenkins_agent::bench
