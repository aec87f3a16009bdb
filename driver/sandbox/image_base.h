// The driver's own layer on top of an image's: every place on which something is mounted, as a real
// directory or file, and the plan's files. A link that the image has in such a place is hidden by
// it, so nothing in an image decides where a mount of the driver goes.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

inline constexpr char kImageBaseDir[] = "base";  // beside kUpperDir and kWorkDir (overlay.h)

// Makes the first of spec.image.layers from spec.mounts, and takes files and links, which it holds
// then, out of them. The targets that a job chose (no_links) are in it only if nothing can be made
// in the root later. In directories that exist and are the caller's alone; with umask 022. Any
// thread.
absl::Status MakeImageBase(pb::SandboxSpec& spec);

}  // namespace jenkins_agent
