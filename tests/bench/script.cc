// Figures that a script measures: it prints one JSON object a line, which become the report's.
#include "tests/bench/script.h"

#include <stdio.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "driver/base/status.h"

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

absl::Status RunScript(const std::string& command, Report& report) {
  // popen: a Ctrl-C at the terminal reaches the script too, which then removes its jobs and
  // directories.
  FILE* const script = ::popen(absl::StrCat("exec python3 ", command).c_str(), "re");
  if (script == nullptr) return ErrnoStatus("python3");
  absl::Status status;
  char* line = nullptr;
  size_t capacity = 0;
  while (::getline(&line, &capacity, script) > 0) {
    absl::StatusOr<Figure> figure = Parse(line);
    status.Update(figure.status());
    if (figure.ok()) report.Add(*std::move(figure));
  }
  ::free(line);
  if (::pclose(script) != 0) status.Update(absl::InternalError("the script failed (see above)"));
  return status;
}

}  // namespace jenkins_agent::bench
