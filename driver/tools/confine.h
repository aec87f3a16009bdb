// Where the image worker's child does its work: whatever a registry or a layer makes of it, it
// reaches the store, the files that it was told to read, and the network, nothing else of the node.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace jenkins_agent {

struct Confinement {
  std::string writable;               // a directory, absolute: the store
  std::vector<std::string> readable;  // files and directories, absolute; missing ones are left out
  bool network = true;                // false: a network namespace with nothing in it
  int64_t max_file_bytes = 0;
};

// For resolving names and checking certificates of hosts: to be added to `readable`.
std::vector<std::string> NetworkFiles();

// The calling process, uid 0, single-threaded and the first of a new pid namespace, gives up the
// host for good: a root of its own that holds the paths above (no programs, no devices) and a /proc
// with its own entries alone; IPC and, if so, network namespaces of its own; the capabilities of
// layer_dir.h; limits for memory, files and descriptors; ImageWorkerFilter(). Descriptors that are
// open stay open.
absl::Status Confine(const Confinement& confinement);

}  // namespace jenkins_agent
