// What a LaunchSpec promises, in the words of the OCI runtime specification's config.json, for a
// judge that knows only those. The LaunchSpec is the one source, so the two cannot drift apart.
#pragma once

#include <nlohmann/json.hpp>

#include "proto/supervisor.pb.h"

namespace jenkins_agent {

// Names as in github.com/opencontainers/runtime-spec, config.md and config-linux.md. Looks at the
// host only for what the plan itself leaves to it: paths that are covered when they exist.
nlohmann::json OciConfig(const pb::LaunchSpec& spec);

}  // namespace jenkins_agent
