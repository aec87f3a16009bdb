// Which part of a sandbox's root file system tasks can share. Looks at the host only to tell files
// from directories; used by the plugin. Thread-safe.
#pragma once

#include "proto/supervisor.pb.h"

namespace jenkins_agent {

// A task's own files outside of its own mounts are links of the template to here.
inline constexpr char kFilesDir[] = "/etc/task";

// Where an image's root hangs until it is the task's root.
inline constexpr char kImagePoint[] = "/image";

// The template of all tasks that run on images: nothing but that place.
pb::TemplateSpec TemplateForImages();

// Moves into the template what is the same for every task (MountSpec.shared), the links and
// directories of the plan, and the hidden paths below them; adds a mount point for everything that
// stays with the task. With it stay the /sys of a network of its own, devices of its own, and in a
// user namespace all binds, whose ids are mapped. What lies inside a mount of the task stays with
// it as it is. Two sandboxes with the same answer share one template, unless it is of single use.
pb::TemplateSpec TakeTemplate(pb::SandboxSpec& sandbox, const pb::UserSpec& user);

}  // namespace jenkins_agent
