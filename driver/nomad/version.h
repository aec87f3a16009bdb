// Versions as Nomad's constraints compare them: hashicorp/go-version for the operator `version`,
// the stricter helper/constraints/semver for `semver`. Pure.
#pragma once

#include "absl/strings/string_view.h"

namespace jenkins_agent::nomad {

enum class VersionRules { kVersion, kSemver };

// Does `version` meet the comma-separated `constraint` (">= 17, < 22", "~> 1.2")? False also when
// either is none: that is what Nomad makes of it.
bool VersionMeets(absl::string_view version, absl::string_view constraint, VersionRules rules);

}  // namespace jenkins_agent::nomad
