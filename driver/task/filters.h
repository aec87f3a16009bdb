// The system call filters of all tasks, each emitted once: resolving its names costs a start more
// than anything else of its plan.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "driver/base/mutex.h"

namespace jenkins_agent {

struct Filters {
  std::string payload;  // SandboxSpec.payload_filter
  std::string init;     // SandboxSpec.init_filter
};

// Thread-safe.
class TaskFilters {
 public:
  // 4 kB each. Jobs choose the capabilities, within the operator's allow_caps.
  static constexpr size_t kMaxKept = 64;

  // For tasks with these capabilities (CAP_*) and with or without `userns`. Emitted anew each time
  // only for what comes after kMaxKept others.
  std::shared_ptr<const Filters> Get(const std::set<uint32_t>& capabilities, bool userns)
      ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  using Key = std::pair<std::set<uint32_t>, bool>;
  Mutex mutex_;
  std::map<Key, std::shared_ptr<const Filters>> kept_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace jenkins_agent
