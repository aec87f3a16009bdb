// Who a task runs as. Names are resolved here, in the plugin: the static supervisor does no NSS.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

// `user`: the job's `user`, or what Nomad fills in for it.
//   ""             nobody
//   "nomad-80001"  a uid handed out by Nomad (capability dynamic_workload_users): no passwd entry,
//                  gid = uid
//   "name", "123", "name:group", "123:456"
// uid 0, by whatever spelling, only with `allow_root`; the error names that option.
absl::StatusOr<pb::UserSpec> ResolveUser(const std::string& user, bool allow_root);

}  // namespace jenkins_agent
