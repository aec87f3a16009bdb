// What earlier plugins left in the state directory, looked through once when a plugin starts.
//
// Nomad has no list of the tasks that it will recover, and asks seconds or minutes later: whatever
// runs is left alone, and so is an exit that nobody has heard of yet.
#pragma once

#include <chrono>
#include <optional>

#include "absl/strings/string_view.h"
#include "driver/base/paths.h"

namespace jenkins_agent {

// For how long an exit waits for a Nomad agent that was away. After a reboot it is of no use.
inline constexpr std::chrono::hours kKeepExit{7 * 24};
// SetConfig waits for this; what is left then is for the next start, or for DestroyTask.
inline constexpr std::chrono::seconds kClearLimit{2};

// What is known of one directory below tasks/.
struct Leftover {
  enum class Record { kMissing, kDamaged, kNewer, kEarlierBoot, kValid };
  Record record = Record::kMissing;
  bool marked = false;            // DestroyTask was under way
  bool supervisor_alive = false;  // by pid and start time, or because it accepts connections
  std::optional<std::chrono::seconds> exit_age = {};  // of the exit record
};

enum class LeftoverAction {
  kLeave,  // runs, or is not ours to judge
  kKeep,   // only the exit record is wanted
  kRemove,
  kEnd,  // and whatever runs
};

// Pure.
LeftoverAction Decide(const Leftover& leftover);

// Applies Decide() to every task's directory. Logs what it did and what still runs; kills nobody,
// except where a DestroyTask was interrupted.
void ClearLeftovers(const StatePaths& paths, absl::string_view boot_id);

}  // namespace jenkins_agent
