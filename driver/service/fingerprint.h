// What the node learns about this driver. Attributes change rarely and carry no live numbers,
// because each change re-runs blocked evaluations (placement.md 3.2); so does each other text of
// the health description, hence fixed texts.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "driver/config/plugin_config.h"
#include "driver/image/store.h"
#include "driver/jvm/java.h"
#include "proto/nomad_driver.pb.h"

namespace jenkins_agent {

inline constexpr char kDriverName[] = "jenkins-agent";
inline constexpr char kDriverVersion[] = PROJECT_VERSION;  // of CMakeLists.txt

// Facts of the host that decide.
struct HostFacts {
  bool root = false;
  std::string cgroups_version;  // "1", "2"; empty: none usable
  std::string cgroups_error;
  std::string state_dir_error;  // "is read-only", "is full", ...; empty: it can be written
  bool user_namespaces = false;
  bool io_weight = false;    // some disk heeds a weight
  uint64_t max_threads = 0;  // of the whole host; 0: unknown
  std::vector<JavaInstall> javas;
  absl::Status tools;             // why agent jars cannot be fetched
  std::vector<StoredRef> images;  // the pinned and pre-pulled ones that are here
};

// The attribute that tells that an image is here, "unique.driver.jenkins-agent.image.NAME": of its
// name, in lower case, everything but letters, digits and '-' is '_', so that a job can write it.
std::string ImageAttribute(absl::string_view name);

// Some ms: it looks at every JDK. `state_dir` need not exist yet.
HostFacts ReadHostFacts(const PluginConfig& config);

// Undetected without root; unhealthy where no agent can run: without cgroups, a state directory
// that can be written, or both a JDK and the means to pull an image that has one. Else healthy; the
// description tells what a job cannot use here.
hashicorp::nomad::plugins::drivers::proto::FingerprintResponse Fingerprint(
    const HostFacts& facts, const PluginConfig& config);

// Sends each attribute of `earlier` that `now` lacks as an empty string, which removes it: Nomad
// keeps what it is not told of (nomad-driver-protocol.md 5.3).
void ClearGoneAttributes(
    const hashicorp::nomad::plugins::drivers::proto::FingerprintResponse& earlier,
    hashicorp::nomad::plugins::drivers::proto::FingerprintResponse& now);

// Decides which of the looks at the host are told. The first one is; then only what differs from
// what was told last and was found the same in several looks on end: a disk that is full now and
// then must not make Nomad schedule anew each time. Which images are kept is no measurement: it is
// told at once. Not thread-safe. Pure.
class FingerprintPace {
 public:
  using Response = hashicorp::nomad::plugins::drivers::proto::FingerprintResponse;
  // Trouble is told soon; that it is over when it has stayed away.
  static constexpr int kLooksToChange = 2;
  static constexpr int kLooksToHeal = 4;

  // What to send, with the attributes that are gone cleared; nothing: nothing.
  std::optional<Response> Next(Response now);
  // The same of a look at the images alone, with the rest as it was seen last: that is no further
  // look at the rest.
  std::optional<Response> NextImages(Response now);

 private:
  std::optional<Response> told_;
  std::optional<Response> candidate_;
  int seen_ = 0;  // looks on end that found the candidate
};

}  // namespace jenkins_agent
