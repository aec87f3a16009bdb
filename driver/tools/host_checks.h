// Whether this host can run agents, as far as it can be seen without Nomad.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "cgroups/hierarchy.h"
#include "driver/jvm/java.h"
#include "driver/tools/finding.h"

namespace jenkins_agent {

// What is looked at. Empty optionals: this host does not tell.
struct HostView {
  bool root = false;
  std::string kernel;   // "6.1.0-28-amd64"
  std::string machine;  // "x86_64"
  cgroups::Version cgroups = cgroups::Version::kNone;
  std::vector<std::string> missing_controllers;
  std::optional<uint64_t> swap_bytes;
  bool counts_swap = false;  // the memory controller limits memory and swap together
  bool clock_synchronised = false;
  std::vector<JavaInstall> javas;
  std::string state_dir;
  std::string state_dir_error;  // empty: it can be written and has room
  std::optional<pid_t> plugin;  // that owns it
  std::string load_error;       // the host has no room for one more task
  // Of the systemd unit nomad.service: KillMode, OOMScoreAdjust, TasksMax; empty: there is none.
  std::map<std::string, std::string> unit;
  std::vector<std::string> missing_libraries;  // of those that only some commands need
};

// Thread-safe. `java_homes`: the plugin's option.
HostView LookAtHost(const std::string& state_dir, const std::vector<std::string>& java_homes);

// Pure.
Findings CheckHost(const HostView& view);

// "KEY=value" lines of `systemctl show`. Pure.
std::map<std::string, std::string> ParseProperties(absl::string_view text);

}  // namespace jenkins_agent
