// What `doctor` found out, and how it is shown. Pure.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace jenkins_agent {

struct Finding {
  enum Grade {
    kOk,
    kWarn,  // agents run, or nobody can tell
    kFail,  // agents do not run, or not all of them
  };
  std::string name;  // of the check: "cgroups", "driver health"
  Grade grade = kOk;
  std::string found;  // one line: what is so
  std::string fix;    // one line: what to do; empty with kOk
};
using Findings = std::vector<Finding>;

Finding Ok(absl::string_view name, absl::string_view found);
Finding Warn(absl::string_view name, absl::string_view found, absl::string_view fix);
Finding Fail(absl::string_view name, absl::string_view found, absl::string_view fix);

// Aligned, the fix on a line of its own. Texts that came from outside are made plain.
std::string FindingsText(const Findings& findings);
// {"checks": [{"name":..,"result":"ok|warn|fail","found":..,"fix":..}], "failed": N, "warned": N}
std::string FindingsJson(const Findings& findings);
bool AnyFailed(const Findings& findings);

}  // namespace jenkins_agent
