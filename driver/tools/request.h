// What the plugin asks the agent-jar worker for: one JSON document on one line of stdin. It never
// holds a secret.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace jenkins_agent {

inline constexpr size_t kMaxRequestBytes = 64 << 10;
inline constexpr size_t kMaxUrls = 16;

struct AgentJarRequest {
  std::vector<std::string> urls;  // "urls"
  std::string name;               // "name": of the node, sent as Node-Name
  bool web_socket = false;        // "web_socket": the agent will not use the TCP port
  std::string network_namespace;  // "network_namespace": path to join; empty: stay
  std::string resolv_conf;        // "resolv_conf": host path used as /etc/resolv.conf; empty: none
  std::string cache_dir;          // "cache_dir": made when missing; not needed with "file"
  std::string file;               // "file": a given jar to inspect; empty: fetch
  int root_pid = 0;     // "root_pid": file and ca_file are paths in /proc/PID/root; 0: host
  std::string ca_file;  // "ca_file": PEM file of further trusted certificates
};

// The line itself; "" at the end of `fd`.
absl::StatusOr<std::string> ReadRequestLine(int fd);

// Unknown keys are ignored: an older worker understands a newer plugin.
absl::StatusOr<AgentJarRequest> ParseAgentJarRequest(absl::string_view line);

}  // namespace jenkins_agent
