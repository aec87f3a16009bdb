// What the plugin asks its workers for: one JSON document on one line of stdin. It never
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
  std::string job;      // "job": whose it is; what is known of a server holds for it alone
  std::string ca_file;  // "ca_file": PEM file of further trusted certificates
};

// What it asks the preflight worker for. The same names mean the same.
struct PreflightRequest {
  std::vector<std::string> urls = {};  // may be empty with "agent_port"
  std::string name = "";
  bool web_socket = false;
  std::string agent_port = "";  // "agent_port": HOST:PORT that the agent tries; "": as discovered
  std::string network_namespace = "";
  std::string resolv_conf = "";
  int root_pid = 0;
  std::string ca_file = "";
};

// The first line of `fd`, at most kMaxRequestBytes; what follows is left unread.
absl::StatusOr<std::string> ReadRequestLine(int fd);

// Unknown keys are ignored: an older worker understands a newer plugin.
absl::StatusOr<AgentJarRequest> ParseAgentJarRequest(absl::string_view line);
absl::StatusOr<PreflightRequest> ParsePreflightRequest(absl::string_view line);

}  // namespace jenkins_agent
