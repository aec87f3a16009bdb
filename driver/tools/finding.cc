#include "driver/tools/finding.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "driver/base/text_table.h"

namespace jenkins_agent {
namespace {

using Json = nlohmann::json;

const char* NameOf(Finding::Grade grade) {
  switch (grade) {
    case Finding::kOk:
      return "ok";
    case Finding::kWarn:
      return "warn";
    case Finding::kFail:
      return "fail";
  }
  return "";
}

int CountOf(const Findings& findings, Finding::Grade grade) {
  return static_cast<int>(
      std::count_if(findings.begin(), findings.end(),
                    [grade](const Finding& finding) { return finding.grade == grade; }));
}

Finding Make(absl::string_view name, Finding::Grade grade, absl::string_view found,
             absl::string_view fix) {
  return {std::string(name), grade, std::string(found), std::string(fix)};
}

}  // namespace

Finding Ok(absl::string_view name, absl::string_view found) {
  return Make(name, Finding::kOk, found, "");
}
Finding Warn(absl::string_view name, absl::string_view found, absl::string_view fix) {
  return Make(name, Finding::kWarn, found, fix);
}
Finding Fail(absl::string_view name, absl::string_view found, absl::string_view fix) {
  return Make(name, Finding::kFail, found, fix);
}

std::string FindingsText(const Findings& findings) {
  std::vector<std::vector<std::string>> rows;
  for (const Finding& finding : findings) {
    rows.push_back({NameOf(finding.grade), Plain(finding.name), Plain(finding.found)});
    if (!finding.fix.empty()) rows.push_back({"", "", absl::StrCat("-> ", Plain(finding.fix))});
  }
  return absl::StrCat(FormatTable({"RESULT", "CHECK", "FOUND"}, rows, /*width=*/0), "\n",
                      findings.size(), " checks: ", CountOf(findings, Finding::kFail), " failed, ",
                      CountOf(findings, Finding::kWarn), " with a warning\n");
}

std::string FindingsJson(const Findings& findings) {
  Json checks = Json::array();
  for (const Finding& finding : findings) {
    checks.push_back({{"name", finding.name},
                      {"result", NameOf(finding.grade)},
                      {"found", finding.found},
                      {"fix", finding.fix}});
  }
  const Json all = {{"checks", std::move(checks)},
                    {"failed", CountOf(findings, Finding::kFail)},
                    {"warned", CountOf(findings, Finding::kWarn)}};
  return all.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

bool AnyFailed(const Findings& findings) { return CountOf(findings, Finding::kFail) > 0; }

}  // namespace jenkins_agent
