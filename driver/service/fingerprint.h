// What the node learns about this driver. Attributes change rarely and carry no live numbers,
// because each change re-runs blocked evaluations (placement.md 3.2).
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "driver/jvm/java.h"
#include "proto/nomad_driver.pb.h"

namespace jenkins_agent {

inline constexpr char kDriverName[] = "jenkins-agent";
inline constexpr char kDriverVersion[] = "0.1.0";

// Facts of the host that decide.
struct HostFacts {
  bool root = false;
  std::string cgroups_version;  // "1", "2"; empty: none usable
  std::string cgroups_error;
  std::vector<JavaInstall> javas;
  absl::Status tools;  // why agent jars cannot be fetched
};

HostFacts ReadHostFacts(const std::vector<std::string>& java_homes);

// Undetected without root, unhealthy without cgroups, else healthy; the description tells what a
// job cannot use here.
hashicorp::nomad::plugins::drivers::proto::FingerprintResponse Fingerprint(const HostFacts& facts);

// Sends each attribute of `earlier` that `now` lacks as an empty string, which removes it: Nomad
// keeps what it is not told of (nomad-driver-protocol.md 5.3).
void ClearGoneAttributes(
    const hashicorp::nomad::plugins::drivers::proto::FingerprintResponse& earlier,
    hashicorp::nomad::plugins::drivers::proto::FingerprintResponse& now);

}  // namespace jenkins_agent
