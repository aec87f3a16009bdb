// What a Nomad agent says of the driver and of the node: read through its API, judged in pure code.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "driver/nomad/client.h"
#include "driver/tools/finding.h"

namespace jenkins_agent {

// GET /v1/agent/self, as far as doctor needs it.
struct NomadAgentFacts {
  std::string version;  // "1.11.3"
  bool client = false;
  std::string node_id;
  std::string plugin_dir;
  std::string state_dir;  // of our plugin block; empty: left out, or Nomad does not tell
};
absl::StatusOr<NomadAgentFacts> ParseAgentSelf(absl::string_view json);

// GET /v1/node/ID
struct NomadNodeFacts {
  std::string name, datacenter, pool, status;
  bool eligible = false;
  bool draining = false;
  bool reserves_something = false;  // client { reserved { } }
  bool driver_detected = false;
  bool driver_healthy = false;
  std::string driver_text;     // its health description
  std::string driver_version;  // of the attributes
  std::string cgroups;         // "1", "2", as Nomad sees them; empty: not told
};
absl::StatusOr<NomadNodeFacts> ParseNode(absl::string_view json);

// Pure.
Findings CheckAgentFacts(const NomadAgentFacts& agent);
Findings CheckNodeFacts(const NomadNodeFacts& node, absl::string_view own_cgroups);
// The certificate files of Nomad's environment: readable, and not about to expire at `now_s`.
Findings CheckTlsFiles(const nomad::Endpoint& endpoint, int64_t now_s);

// All of it. `own_cgroups`: "1" or "2", as the driver sees them.
struct NomadChecks {
  Findings findings;
  std::string state_dir;  // empty: Nomad does not tell
};
NomadChecks CheckNomad(nomad::Client& client, absl::string_view own_cgroups);

}  // namespace jenkins_agent
