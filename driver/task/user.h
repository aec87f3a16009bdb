// Who a task runs as. Names are resolved here, in the plugin: the static supervisor does no NSS.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

// `user`: the job's `user`, or what Nomad fills in for it.
//   ""             nobody
//   "nomad-80001"  a uid handed out by Nomad (capability dynamic_workload_users): no passwd entry,
//                  gid = uid
//   "name", "123", "name:group", "123:456"
// uid 0, by whatever spelling, only with `allow_root`; the error names that option.
absl::StatusOr<pb::UserSpec> ResolveUser(const std::string& user, bool allow_root);

// The same in an image, whose names are its own: `passwd` and `group` are the texts of its files.
// `image_user`: what the image says, which counts when the job names nobody. A number needs no
// entry.
absl::StatusOr<pb::UserSpec> ResolveImageUser(const std::string& user,
                                              const std::string& image_user,
                                              absl::string_view passwd, absl::string_view group,
                                              bool allow_root);

}  // namespace jenkins_agent
