// How the worker gets to where the task is, and how it becomes nobody before it talks to anyone.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "driver/base/fd.h"

namespace jenkins_agent {

// The calling process sees the task's network and, where given, its resolver (in a mount namespace
// of its own). Empty strings: nothing changes.
absl::Status EnterTaskNetwork(const std::string& network_namespace, const std::string& resolv_conf);

// Opens a regular file named by a job for reading, in the root of process `root_pid` (0: the
// host's); no symlink leads out of that root, and a FIFO or device is not opened.
absl::StatusOr<Fd> OpenJobFile(const std::string& path, int root_pid);

// Content of a job's agent.ca_file, "" for "". InvalidArgument when there is no certificate in it.
absl::StatusOr<std::string> ReadCaFile(const std::string& path, int root_pid);

// nobody, no groups, no capabilities, no_new_privs, small limits, dies with its parent. Without
// root only what an ordinary user can do.
absl::Status BecomeNobody();

}  // namespace jenkins_agent
